"""
What several tests of the suite ask; each helper says what is wrong in words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from llmcore.testing import ViolationKind
from llmcore_conformance.ledger import SeamLedger

T = TypeVar("T")


def assert_none(ledger: SeamLedger, *kinds: ViolationKind, cause: str) -> None:
    """
    No promise of these kinds was broken at the seam.

    Args:
        cause: What is likely wrong otherwise.
    """
    __tracebackhide__ = True
    found = ledger.found(*kinds)
    assert not found, f"{'; '.join(map(str, found))}; likely cause: {cause}"


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Run something in a thread of its own; ``result(timeout)`` of it waits."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="conformance", daemon=True).start()
    return future
