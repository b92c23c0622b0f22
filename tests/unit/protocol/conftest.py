"""The protocol objects over a scripted null engine, with its ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llmcore
from llmcore.testing import NullScript, null_backend

WAIT = 20.0  # seconds until a test that hangs gives up


class Stage:
    """A llama, a model and a context, made when first asked for."""

    def __init__(self, **script: Any) -> None:
        self.script = NullScript(**script)
        self.backend = null_backend(self.script)
        self.ledger = self.backend.ledger
        self.llama = llmcore.get_llama(self.backend)
        self.model = self.llama.load_model()

        self._kept: list[object] = []  # so that nothing is forgotten before the end

    def keep(self, resource: Any) -> Any:
        self._kept.append(resource)
        return resource

    def context(self, **params: Any) -> llmcore.Context:
        params = {"context_size": 128, **params}
        return self.keep(self.model.create_context(**params))

    def sequence(self, **params: Any) -> llmcore.Sequence:
        return self.keep(self.context(**params).get_sequence())

    def tokens(self, text: str) -> list[int]:
        return self.model.tokenize(text)

    def decodes(self) -> int:
        return self.ledger.calls["decode"]


@pytest.fixture(name="stage")
def _stage() -> Iterator[Callable[..., Stage]]:
    """Make stages; at the end all is disposed and the ledger must be clean."""
    stages: list[Stage] = []

    def make(**script: Any) -> Stage:
        stages.append(Stage(**script))
        return stages[-1]

    yield make
    for stage in stages:
        stage.llama.dispose()
        assert stage.ledger.violations == []
        assert stage.ledger.live == {}


class Worker:
    """A thread whose result or exception the test looks at."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.result = work()
        except BaseException as error:
            self.error = error

    def join(self) -> Any:
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the thread hangs"
        return self.result


@pytest.fixture(name="worker")
def _worker() -> type[Worker]:
    return Worker
