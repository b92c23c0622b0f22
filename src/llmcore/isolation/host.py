"""
`Host`: the process that an isolated backend has now, one after the other.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from llmcore.errors import BackendCrashedError, LlmcoreError
from llmcore.isolation.process import EngineProcess
from llmcore.params.isolation import Restart
from llmcore.values import BackendInfo

T = TypeVar("T")

MOST_DEATHS, IN_SECONDS = 5, 60.0
"""A process that dies more often is not started again."""


class Host:
    """
    Lives as long as its backend. Any thread.

    Args:
        info: Of the backend.

        restart: Whether a process that died is followed by another.

        watchdog: See `Lane`.
    """

    def __init__(
        self, info: BackendInfo, restart: Restart, watchdog: float | None
    ) -> None:
        self.replays = restart == "replay"
        self.process = EngineProcess(info, watchdog)
        self._start = partial(EngineProcess, info, watchdog)
        self._numbers = itertools.count(1)
        self._deaths = deque[float](maxlen=MOST_DEATHS)
        self._reviving = threading.Lock()
        self._closed = False

    def number(self) -> int:
        """For a new object."""
        return next(self._numbers)

    def run(
        self,
        work: Callable[[EngineProcess], T],
        failure: Callable[[str], LlmcoreError],
    ) -> T:
        """
        Do something in the process, and once more in the next one if it dies of that.

        Args:
            work: What to do; brings along what it needs there.

            failure: Makes the exception to raise if that died too.

        Raises:
            BackendCrashedError: There is no next one.
        """
        process = self.process
        try:
            return work(process)
        except BackendCrashedError as crash:
            process = self._next(process, crash)
        try:
            return work(process)
        except BackendCrashedError as crash:
            self._next(process, crash)
            raise failure(str(crash)) from crash

    def _next(self, dead: EngineProcess, crash: BackendCrashedError) -> EngineProcess:
        """The process after a dead one; raises ``crash`` if there is none."""
        with self._reviving:
            if self.process is not dead:
                return self.process
            if not self.replays or self._closed:
                raise crash
            now = time.monotonic()
            if len(self._deaths) == MOST_DEATHS and now - self._deaths[0] < IN_SECONDS:
                raise BackendCrashedError(
                    f"{crash} (it died {MOST_DEATHS + 1} times within {IN_SECONDS:g} s "
                    "and is not started again)"
                ) from crash
            self._deaths.append(now)
            dead.kill()
            self.process = self._start()
            return self.process

    def close(self) -> None:
        """End the process."""
        with self._reviving:
            self._closed = True
        self.process.close()
