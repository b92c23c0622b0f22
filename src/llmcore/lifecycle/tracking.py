"""
Where a resource was created, and how to tell what nobody can catch.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from types import FrameType

_OWN = ("llmcore.", "llmcore_")


def creation_site() -> tuple[str, int]:
    """File and line of the nearest caller outside of llmcore."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(_OWN) and name != "llmcore":
            return frame.f_code.co_filename, frame.f_lineno
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def creation_stack(
    most: int, end: tuple[str, ...] = ()
) -> tuple[tuple[str, int, str], ...]:
    """
    File, line and function of the callers outside of llmcore, the nearest first.

    Args:
        most: So many at most.

        end: Packages whose frames end it, such as those of a test runner.
    """
    calls: list[tuple[str, int, str]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(calls) < most:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in end:
            break
        if not name.startswith(_OWN) and name != "llmcore":
            code = frame.f_code
            calls.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(calls)


def report(error: BaseException) -> None:
    """Show an exception that nobody can catch, the way Python itself does it."""
    errors = [error]

    def ignored_in_llmcore(_: object) -> None:
        raise errors.pop()

    # Only Python can make the argument of the hook; for a weak reference it does.
    anchor: set[None] = set()
    reference = weakref.ref(anchor, ignored_in_llmcore)
    del anchor, reference


def warn_forgotten(label: str, site: tuple[str, int]) -> None:
    """Emit the `ResourceWarning` of a resource that the collector had to dispose."""
    try:
        warnings.warn_explicit(
            f"{label} was never disposed: the garbage collector did it; use `with` or "
            "call dispose()",
            ResourceWarning,
            filename=site[0],
            lineno=site[1],
        )
    except Exception as error:  # warnings are errors here, but nobody can catch it
        report(error)
