"""What the engine says: to `logging`, and into the messages of our errors."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

logger = logging.getLogger("llmcore.llama_cpp")
# Without a handler of our own, `logging` prints warnings to stderr as a last resort.
logger.addHandler(logging.NullHandler())

# `enum ggml_log_level`; the binding's own table of it is out of date.
INFO, WARN, ERROR, CONTINUED = 2, 3, 4, 5
LEVELS = {WARN: logging.WARNING, ERROR: logging.ERROR}


class Line(NamedTuple):
    """One complete line, with the engine's level."""

    level: int
    text: str


class _PerThread(threading.local):
    """The engine logs on the thread that called it, so each thread has its own."""

    level: int = INFO
    unfinished: str = ""
    captured: list[Line] | None = None


_thread = _PerThread()
_callback: Any = None


def install(native: Any) -> None:
    """Take over the engine's log (that of ggml too) for the life of the process."""
    global _callback
    _callback = native.llama_log_callback(receive)
    native.llama_log_set(_callback, None)


def uninstall(native: Any, function: Any) -> None:
    """Send all that follows to a C function."""
    native.llama_log_set(ctypes.cast(function, native.llama_log_callback), None)


@contextlib.contextmanager
def captured() -> Iterator[list[Line]]:
    """Collect what the engine says on this thread meanwhile."""
    outer = _thread.captured
    lines: list[Line] = []
    _thread.captured = lines
    try:
        yield lines
    finally:
        _thread.captured = outer


def reason(lines: list[Line]) -> str:
    """The engine's own words for a failure: its errors, without function names."""
    errors = [line.text for line in lines if line.level == ERROR]
    errors = errors or [line.text for line in lines if line.level == WARN]
    words = [text.split(": ", 1)[-1] for text in errors[:3]]
    return "; ".join(dict.fromkeys(words)) or "the engine gave no reason"


def receive(level: int, text: bytes | None, user_data: object = None) -> None:
    """Take a piece of a line; for the engine to call."""
    # Called from C: nothing may be raised into it, not even by a user's log handler.
    with contextlib.suppress(BaseException):
        if level == CONTINUED:
            level = _thread.level
        elif _thread.unfinished:
            _finish()
        _thread.level = level
        _thread.unfinished += (text or b"").decode("utf-8", "replace")
        if _thread.unfinished.endswith("\n"):
            _finish()


def _finish() -> None:
    line = Line(_thread.level, _thread.unfinished.rstrip())
    _thread.unfinished = ""
    if _thread.captured is not None:
        _thread.captured.append(line)
    # What the engine finds worth telling is detail to the user of a framework.
    logger.log(LEVELS.get(line.level, logging.DEBUG), "%s", line.text)
