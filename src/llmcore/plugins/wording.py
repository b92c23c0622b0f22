"""How plugin problems are put into words."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable


def describe(error: BaseException) -> str:
    """Type and first line of an exception, even if its ``__str__`` raises."""
    lines = traceback.format_exception_only(type(error), error)
    # a SyntaxError starts with indented lines that quote the source
    text = next(line for line in lines if not line.startswith(" "))
    return text.splitlines()[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` or nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=3)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""
