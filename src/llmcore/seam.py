"""
What may leave the seam: llmcore's own errors, and everything else as `BackendError`.
"""

from __future__ import annotations

from typing import Any

from llmcore.errors import BackendCrashedError, BackendError, LlmcoreError
from llmcore.lifecycle import Node, break_all


def first_look(native: Any, fact: str) -> Any:
    """
    A fact about a native object that nobody owns yet: if that fails, it is closed.

    Args:
        fact: Name of the attribute.
    """
    try:
        return getattr(native, fact)
    except BaseException:
        native.close()
        raise


class Translator:
    """
    Turns what an engine raised into what the caller sees, for every use of its handles.

    An engine that died also breaks everything that lives on it.

    Args:
        backend: Name of the backend.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.root: Node | None = None  # of the `Llama`, set once it exists

    def __call__(self, error: BaseException) -> None:
        if isinstance(error, BackendCrashedError) and self.root is not None:
            break_all(self.root, str(error))
        if isinstance(error, LlmcoreError) or not isinstance(error, Exception):
            return
        raise BackendError(
            f"the {self._backend} backend raised {type(error).__name__}: {error}"
        ) from error
