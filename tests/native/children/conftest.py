"""Null engines in processes of their own, and what those say."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest

import llmcore
from llmcore.backends.null import INFO
from llmcore.isolation import IsolatedBackend, isolated
from llmcore.values import evolve

WAIT = 60.0  # seconds until a test that hangs gives up

Engine = Callable[..., IsolatedBackend]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """``engine("segfault")`` is an isolated one of `isolation_engines`."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made: list[IsolatedBackend] = []

    def make(factory: str = "", **options: Any) -> IsolatedBackend:
        info = INFO
        if factory:
            info = evolve(INFO, factory=f"isolation_engines:{factory}")
        made.append(isolated(info, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
        assert not psutil.pid_exists(backend.pid)


@pytest.fixture
def sequence(engine: Engine) -> Iterator[Callable[..., llmcore.Sequence]]:
    """``sequence("segfault")`` is one on such an engine, by the public protocol."""
    kept: list[llmcore.Sequence] = []

    def make(
        factory: str = "",
        params: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> llmcore.Sequence:
        llama = llmcore.get_llama(engine(factory, **options))
        model = llama.load_model()
        context = model.create_context(context_size=256, **params)
        kept.append(context.get_sequence())
        return kept[-1]

    yield make
    for sequence in kept:
        llama_of(sequence).dispose()


def llama_of(sequence: llmcore.Sequence) -> llmcore.Llama:
    return sequence.context.model._parent  # type: ignore[return-value]


def pid_of(sequence: llmcore.Sequence) -> int:
    """Of the child that a sequence lives in."""
    backend: IsolatedBackend = llama_of(sequence)._node.handle
    return backend.pid


class Listener(logging.Handler):
    """Sets an event when a child says something, and keeps all that is said."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._wanted: list[tuple[str, threading.Event]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        for text, event in self._wanted:
            if text in record.getMessage():
                event.set()

    def expect(self, text: str) -> threading.Event:
        self._wanted.append((text, event := threading.Event()))
        return event


@pytest.fixture
def listener() -> Iterator[Listener]:
    """What all children say."""
    listener = Listener()
    logger = logging.getLogger("llmcore.isolation")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    yield listener
    logger.setLevel(level)
    logger.removeHandler(listener)
