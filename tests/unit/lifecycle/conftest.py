from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from llmcore.lifecycle import collect_forgotten, format_tree
from llmcore.lifecycle.tree import NODES

from .kit import PATIENCE, Ledger


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The books; no test may end with a violation."""
    books = Ledger()
    yield books
    assert not books.violations


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a live resource or a disposal behind."""
    before = set(NODES)
    yield
    for thread in threading.enumerate():
        if thread.name == "llmcore-dispose":
            thread.join(PATIENCE)
    collect_forgotten()
    assert set(NODES) <= before, format_tree()


@pytest.fixture
def unraisable(
    monkeypatch: pytest.MonkeyPatch,
) -> list[sys.UnraisableHookArgs]:
    """What was shown because nobody could catch it."""
    shown: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    return shown


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Asynchronous tests run on both event loops."""
    return str(request.param)
