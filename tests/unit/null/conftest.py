"""A null engine at the seam, opened and closed by hand as core would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from llmcore.spi import Batch
from llmcore.testing import NullScript, null_backend
from llmcore.values import ContextParams, ModelParams


def batch(*parts: tuple[int, int, list[int]]) -> Batch:
    """Of (sequence, first position, tokens) parts, all rows with output."""
    rows = [(t, p, n) for n, at, tokens in parts for p, t in enumerate(tokens, at)]
    return Batch(
        [t for t, _, _ in rows],
        [p for _, p, _ in rows],
        [n for _, _, n in rows],
        [True] * len(rows),
    )


class Engine:
    """One backend, one model, one context, and the loop that core would run."""

    def __init__(self, script: NullScript, **params: Any) -> None:
        self.script = script
        self.backend = null_backend(script)
        self.ledger = self.backend.ledger
        self.model = self.backend.load_model(None, ModelParams(), lambda share: True)
        self.params = ContextParams(**{"context_size": 64, "sequences": 2, **params})
        self.context = self.model.create_context(self.params)

    def feed(self, tokens: list[int], at: int = 0, sequence: int = 0) -> int:
        """Evaluate tokens; the best token that follows."""
        self.context.decode(batch((sequence, at, tokens)))
        return int(self.context.logits(len(tokens) - 1).argmax())

    def write(
        self, tokens: list[int], count: int, at: int = 0, sequence: int = 0
    ) -> Any:
        """Evaluate tokens and generate greedily; the tokens generated."""
        said = [self.feed(tokens, at, sequence)]
        for position in range(at + len(tokens), at + len(tokens) + count - 1):
            said.append(self.feed(said[-1:], position, sequence))
        return said

    def text(self, tokens: list[int]) -> bytes:
        return b"".join(map(self.model.piece, tokens))

    def close(self) -> None:
        for part in (self.context, self.model, self.backend):
            part.close()

    @property
    def violations(self) -> list[str]:
        return [violation.kind.value for violation in self.ledger.violations]


MakeEngine = Callable[..., Engine]
Start = Callable[..., Future[Any]]


@pytest.fixture(name="engine")
def _engine() -> MakeEngine:
    def make(script: NullScript | None = None, **params: Any) -> Engine:
        return Engine(script or NullScript(), **params)

    return make


@pytest.fixture(name="start")
def _start() -> Iterator[Start]:
    """Run a call in another thread; all are joined at the end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit
