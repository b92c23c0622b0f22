"""
The lock of the tree.
"""

from __future__ import annotations

import threading
from _thread import RLock
from collections.abc import Callable

MOMENT = 0.1
"""Seconds after which a waiter looks again by itself: Ctrl-C can swallow a signal."""


class Monitor(RLock):  # type: ignore[misc]
    """
    A re-entrant lock, and the signal that something under it changed.

    Entering and leaving are C code of the lock itself, so that Ctrl-C cannot strike
    between taking the lock and knowing that it is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition(self)

    @property
    def mine(self) -> bool:
        """
        Whether this thread is inside a section of the kernel right now.

        Only a signal handler or a collected object's ``__del__`` can see True.
        """
        return bool(self._is_owned())  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> None:
        """Give up the lock until something changed, or for a moment."""
        self._changed.wait(MOMENT if timeout is None else min(timeout, MOMENT))

    def wait_for(self, ready: Callable[[], object], timeout: float) -> bool:
        """Wait until something is true, which is looked at under the lock."""
        return bool(self._changed.wait_for(ready, timeout))

    def notify_all(self) -> None:
        """Something changed."""
        self._changed.notify_all()


TREE = Monitor()
"""
Guards all links and states. Re-entrant, because the collector and signal handlers run
anywhere; no native call and no user code ever runs under it.
"""
