"""
`Alarm`: aborts that arrive beside the call they are meant for, in the child.

The parent numbers all that it says about aborting by one clock. An abort reaches the
child by another way than the evaluation, so it may be too early or too late; by its
number it stops what was asked for before it, and nothing that was asked for after the
parent allowed evaluations again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Alarm:
    """
    Lives as long as its context. Any thread.

    Args:
        abort: Of the context.
    """

    def __init__(self, abort: Callable[[bool], object]) -> None:
        self._abort = abort
        self._lock = threading.Lock()
        self._allowed = 0
        self._rung = 0
        self._closed = False

    def allow(self, moment: int) -> None:
        """An evaluation begins, for which only aborts after this moment count."""
        with self._lock:
            self._allowed = moment
            self._abort(self._rung > moment)

    def ring(self, moment: int) -> None:
        """The parent asked for an abort at this moment."""
        with self._lock:
            self._rung = max(self._rung, moment)
            if self._rung > self._allowed and not self._closed:
                self._abort(True)

    def close(self) -> None:
        """The context is about to be freed."""
        with self._lock:
            self._closed = True
