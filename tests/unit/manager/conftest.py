"""Managers over scripted null engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmcore.manager import ModelManager
from llmcore.testing import NullScript, null_backend

WAIT = 20.0  # seconds until a test that hangs gives up

MB = 1_000_000


class House:
    """A manager, and the engines that were made for it."""

    def __init__(self, **options: Any) -> None:
        self.manager = ModelManager(**{"name": None, "headroom": 0.0, **options})
        self.scripts: dict[object, NullScript] = {}
        self.backends: list[Any] = []
        self._threads: list[threading.Thread] = []

    def engine(self, id: object, **script: Any) -> Any:
        """A scripted engine for a model of one megabyte, and a cache of nothing."""
        made = NullScript(**{"model_bytes": MB, "kv_bytes_per_token": 0, **script})
        backend = null_backend(made)
        self.scripts[id] = made
        self.backends.append(backend)
        return backend

    def load(
        self, id: Any, *, size: int = MB, script: Any = None, **options: Any
    ) -> Any:
        """Load a model of so many bytes."""
        backend = self.engine(id, model_bytes=size, **(script or {}))
        options = {"context_size": 64, "reserve": size, **options}
        return self.manager.load(id, backend=backend, **options)

    def gated(self, id: Any, op: str, **options: Any) -> Any:
        """Load a model in the background whose engine waits in an operation."""
        size = options.pop("size", MB)
        backend = self.engine(id, model_bytes=size)
        gate = self.scripts[id].gate(op)
        options = {"context_size": 64, "reserve": size, "wait": False, **options}
        self.manager.load(id, backend=backend, **options)
        return gate

    def settle(self, id: Any) -> None:
        """Wait until a model is not loading any more."""
        assert self.manager._table.get(id).settled.wait(WAIT)
        for thread in threading.enumerate():
            if thread.name == "llmcore-load":
                thread.join(WAIT)

    def thread(self, work: Callable[[], Any]) -> Worker:
        return Worker(work)

    @property
    def ids(self) -> list[Any]:
        return [info["id"] for info in self.manager.list()]


class Worker:
    """A thread whose result or exception the test looks at."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.result = work()
        except BaseException as error:
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the thread hangs"
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture(name="house")
def _house() -> Iterator[Callable[..., House]]:
    """Make houses; at the end all is disposed, and nothing is left of it anywhere."""
    houses: list[House] = []

    def make(**options: Any) -> House:
        houses.append(House(**options))
        return houses[-1]

    yield make
    for house in houses:
        house.manager.dispose()
    for house in houses:
        assert house.manager.budget.holders == {}
        for backend in house.backends:
            assert backend.ledger.violations == []
            assert set(backend.ledger.live) <= {"backend"}  # refused before its use
