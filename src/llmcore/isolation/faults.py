"""
How an exception crosses from the child: as a name, its arguments and its traceback.
"""

from __future__ import annotations

import traceback

from llmcore import errors
from llmcore.errors import BackendError, LlmcoreError
from llmcore.isolation.wire import Failed, MalformedError, Plain

LONGEST = 8000
"""Characters of a message or a traceback that cross."""


class RemoteError(Exception):
    """The traceback of what was raised in the child, as text; only ever a cause."""


def pack(number: int, error: BaseException) -> Failed:
    """
    What to tell the parent.

    Args:
        number: Of the call.

        error: What it raised.
    """
    kind, arguments = _kind_of(error)
    text = "".join(traceback.format_exception(error))
    return Failed(
        number=number,
        kind=kind,
        arguments=tuple(map(_shortened, arguments)),
        traceback=_sendable(text[-LONGEST:]),
    )


def _kind_of(error: BaseException) -> tuple[str, tuple[object, ...]]:
    """The nearest class that the parent knows, and how to make one there."""
    for base in type(error).__mro__:
        if _known(base.__name__) is base:
            arguments = error.__reduce__()[1]
            try:
                base(*arguments)
            except TypeError:
                continue
            return base.__name__, tuple(arguments)
    return "", (type(error).__name__, str(error))


def _known(kind: str) -> type[LlmcoreError] | None:
    found = getattr(errors, kind, None)
    if not isinstance(found, type) or not issubclass(found, LlmcoreError):
        return None
    return None if issubclass(found, BaseExceptionGroup) else found


def _shortened(value: object) -> Plain:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _sendable(str(value)[:LONGEST])


def _sendable(text: str) -> str:
    """The name of a file may have bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


def unpack(failed: Failed, backend: str) -> LlmcoreError:
    """
    The exception to raise in the parent.

    Args:
        failed: What the child told.

        backend: Its name.

    Raises:
        MalformedError: There can be no such exception.
    """
    try:
        if failed.kind:
            error = _rebuilt(failed)
        else:
            name, message = failed.arguments
            error = BackendError(f"the {backend} backend raised {name}: {message}")
    except (TypeError, ValueError) as problem:
        raise MalformedError(f"no such error: {failed.kind!r}") from problem
    error.__cause__ = RemoteError(failed.traceback)
    return error


def _rebuilt(failed: Failed) -> LlmcoreError:
    kind = _known(failed.kind)
    if kind is None:
        raise TypeError(failed.kind)
    return kind(*failed.arguments)
