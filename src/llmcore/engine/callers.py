"""
Calling code of the caller on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from llmcore.errors import LlmcoreError

P = ParamSpec("P")
T = TypeVar("T")


class CallersError(LlmcoreError):
    """Carries what the caller's own code raised to him, unchanged."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(str(original))
        self.original = original


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call it; what it raises is not taken for an error of the backend.

    Raises:
        CallersError: It raised.
    """
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        raise CallersError(error) from error
