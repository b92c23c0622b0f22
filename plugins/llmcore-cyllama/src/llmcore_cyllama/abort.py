"""How another thread stops an evaluation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class Abort:
    """
    The flag of a native context that its engine reads between two operations.

    Any thread. Nothing is held while the engine works, so nobody waits.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self._lock = threading.Lock()
        self._wanted = False
        self._allowed = True
        native.install_cancel_callback()

    def set(self, stop: bool) -> None:
        """Stop what runs and what will run, or let it run again."""
        with self._lock:
            self._wanted = stop
            self._native.cancel = stop and self._allowed

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """What runs meanwhile is not stopped; a wish to stop counts afterwards."""
        self._allow(False)
        try:
            yield
        finally:
            self._allow(True)

    def _allow(self, allowed: bool) -> None:
        with self._lock:
            self._allowed = allowed
            self._native.cancel = self._wanted and allowed
