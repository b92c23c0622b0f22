"""
What several tests of the suite ask; each helper says what is wrong in words.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from llmcore.testing import ViolationKind
from llmcore_conformance.ledger import SeamLedger

T = TypeVar("T")

MOMENT = 0.1
"""
Seconds that a call which must wait is watched. A right one is never judged wrong,
however slow the machine is; a wrong one returns much sooner.
"""


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


def outcome(future: Future[T], patience: float, what: str) -> T:
    """What a thread returned; a thread that hangs fails the test."""
    __tracebackhide__ = True
    try:
        return future.result(patience)
    except TimeoutError:
        if future.done():
            raise
        raise AssertionError(f"{what} did not return: it hangs") from None


def assert_waits(future: Future[T], what: str) -> None:
    """A call in another thread has not returned, because it must wait."""
    __tracebackhide__ = True
    try:
        future.result(MOMENT)
    except TimeoutError:
        if not future.done():
            return
        raise
    raise AssertionError(f"{what} returned and did not wait")


def assert_becomes(condition: Callable[[], object], patience: float, what: str) -> None:
    """Something that another thread does happens."""
    __tracebackhide__ = True
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: never"
        pause.wait(0.001)


def label(resource: object) -> str:
    """The name under which errors speak of a resource, such as ``"model#2"``."""
    found = re.search(r"\w+#\d+", repr(resource))
    assert found, f"repr() must name the resource, it is {resource!r}"
    return found.group()
