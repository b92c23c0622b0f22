"""
`Log`: what the child prints, kept in part and passed on to `logging`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from subprocess import Popen

logger = logging.getLogger("llmcore.isolation")
# Without a handler of our own, `logging` prints warnings to stderr as a last resort.
logger.addHandler(logging.NullHandler())

LEVELS = logging.getLevelNamesMapping()
KEPT = 20
"""Lines that are kept for the message about a death."""
LONGEST = 400
"""Characters of a line; what is longer is cut."""


class Log:
    """
    A thread that reads until the last writer is gone.

    Args:
        process: The child, with both outputs in one pipe.

        backend: Its name.
    """

    def __init__(self, process: Popen[bytes], backend: str) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._origin = f"{backend} engine {process.pid}"
        self._lines = deque[str](maxlen=KEPT)
        self._thread = threading.Thread(
            target=self._read, name="llmcore-isolation-log", daemon=True
        )
        self._thread.start()

    @property
    def last(self) -> str:
        """The last lines, to be put after what happened; empty if there are none."""
        lines = "".join(f"\n  {line}" for line in self._lines)
        return f"; the last it said:{lines}" if lines else ""

    def drain(self, timeout: float) -> None:
        """Wait until all is read that a dead child has left."""
        self._thread.join(timeout)

    def close(self, timeout: float) -> None:
        """Stop reading, unless a process that the child started still writes."""
        self.drain(timeout)
        if not self._thread.is_alive():
            self._stream.close()

    def _read(self) -> None:
        rest = b""
        while part := os.read(self._stream.fileno(), 1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._take(line)
            rest = rest[-4 * LONGEST :]
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()[:LONGEST]
        text = "".join(c if c.isprintable() else " " for c in text)
        if text:
            # The child's own `logging` puts the level first, see `child`.
            level = LEVELS.get(text.partition(" ")[0])
            # An engine's chatter would push out what it said of its death.
            if level != logging.DEBUG:
                self._lines.append(text)
            logger.log(level or logging.DEBUG, "%s: %s", self._origin, text)
