"""A null engine, and a checked one with its methods replaced by lies where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llmcore
from llmcore.spi import Batch
from llmcore.testing import (
    CheckedBackend,
    ContractError,
    NullScript,
    checked,
    null_backend,
)
from llmcore.values import ContextParams, ModelParams

PARAMS = ContextParams(context_size=64, sequences=2, batch_size=8)


def batch(*rows: tuple[int, int, int], output: bool = True) -> Batch:
    """Of (token, position, sequence) rows."""
    tokens, positions, sequences = zip(*rows, strict=True)
    return Batch(tokens, positions, sequences, [output] * len(rows))


class Checked:
    """One checked backend, and on it a model and a context, made when asked for."""

    def __init__(self, script: NullScript) -> None:
        self.script = script
        self.engine: CheckedBackend = checked(null_backend(script))
        self._model: Any = None
        self._context: Any = None

    def load(self, answers: Callable[[float], bool] = lambda share: True) -> Any:
        return self.engine.load_model(None, ModelParams(), answers)

    @property
    def model(self) -> Any:
        self._model = self._model or self.load()
        return self._model

    @property
    def context(self) -> Any:
        self._context = self._context or self.model.create_context(PARAMS)
        return self._context

    def feed(self, count: int = 3, sequence: int = 0) -> None:
        """Evaluate so many tokens on an empty sequence."""
        self.context.decode(batch(*[(97 + n, n, sequence) for n in range(count)]))

    def assert_broken(self, party: str, method: str, work: Callable[[], Any]) -> None:
        """Some work breaks the contract: who, and in which method."""
        __tracebackhide__ = True
        with pytest.raises(ContractError) as caught:
            work()
        assert (caught.value.party, caught.value.method) == (party, method)
        assert self.engine.violations == [caught.value]


Make = Callable[..., Checked]


@pytest.fixture
def llama() -> Iterator[llmcore.Llama]:
    """An instance that outlives the checks."""
    with llmcore.get_llama(null_backend()) as llama:
        yield llama


@pytest.fixture
def make() -> Make:
    """``make(capabilities=...)`` has what a `NullScript` has."""
    return lambda **fields: Checked(NullScript(**fields))


@pytest.fixture
def one() -> Checked:
    """An obedient engine."""
    return Checked(NullScript())
