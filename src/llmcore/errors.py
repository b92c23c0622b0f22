"""
Every exception of llmcore, on one page.

All derive from `LlmcoreError` and from the nearest builtin, so that both
``except LlmcoreError`` and, say, ``except ValueError`` read naturally. A message
names the object, the cause and the fix, in lower case. What an engine raised is kept
as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LlmcoreError(Exception):
    """The base of everything that llmcore raises on purpose."""


# -- the life of a resource ----------------------------------------------------------


class ParameterError(LlmcoreError, ValueError):
    """A parameter does not suit this model or this backend; names the field."""


class DisposedError(LlmcoreError, RuntimeError):
    """The object was used after `dispose()`; names the object and what disposed it."""


class ForkError(LlmcoreError, RuntimeError):
    """The object was created before `os.fork()` and is used in the child."""


class BrokenError(LlmcoreError, RuntimeError):
    """The engine under the object died; only `dispose()` still works."""


class DisposeTimeoutError(LlmcoreError, TimeoutError):
    """
    `dispose(timeout=...)` gave up waiting for work that is still inside the engine.

    The object is disposed for every purpose; its memory is freed in the background
    when that work ends. Disposing again waits again.
    """


class DisposeError(ExceptionGroup[Exception], LlmcoreError):
    """Everything was freed, but some teardowns raised; holds what they raised."""

    def derive(self, excs: Sequence[Any]) -> Any:
        return type(self)(self.message, excs)


class BusyError(LlmcoreError, RuntimeError):
    """Two users at once where only one is allowed."""


class SequenceBusyError(BusyError):
    """A sequence has one user at a time, and it has one now."""


# -- finding and loading -------------------------------------------------------------


class UnknownBackendError(LlmcoreError, LookupError):
    """No installed plugin provides a backend of that name."""


class BackendUnavailableError(LlmcoreError, RuntimeError):
    """The backend is known but cannot be used here; the message says how to fix it."""


class AmbiguousBackendError(LlmcoreError, LookupError):
    """Several distributions claim the name; ask for ``"distribution:name"``."""


class PluginErrorGroup(ExceptionGroup[Exception], LlmcoreError):
    """All plugin problems at once, raised only if ``LLMCORE_STRICT_PLUGINS=1``."""

    def derive(self, excs: Sequence[Any]) -> Any:
        return type(self)(self.message, excs)


class ModelLoadError(LlmcoreError, RuntimeError):
    """
    A model could not be loaded.

    Attributes:
        path: The file that was asked for.
        reason: Why, in a few words.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot load model {str(path)!r}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class SourceError(ModelLoadError):
    """A model cannot be had from where it is to come from; ``path`` is the source."""


class SourceNotFoundError(SourceError, LookupError):
    """There is no such repository, revision or file, or it is not on this machine."""


class SourceAccessError(SourceError):
    """It is there, but not for everyone: the token is missing or does not suffice."""


class DownloadError(SourceError):
    """
    A download failed: cut off, not what was announced, or no room for it.

    What arrived before a cut is kept for the next try; what is wrong is removed.
    """


class ContextCreationError(LlmcoreError, RuntimeError):
    """A context could not be created; the model is as usable as before."""


class InsufficientMemoryError(LlmcoreError, MemoryError):
    """
    The engine, or the budget, has not enough memory for what was asked.

    Attributes:
        account: The whole story, a `llmcore.memory.Shortage`: what was needed, what
            there was, who had it, and what was tried; None if only the engine knows.
    """

    def __init__(self, message: str = "", account: Any = None) -> None:
        super().__init__(message)
        self.account = account

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.account)


# -- many models ---------------------------------------------------------------------


class AlreadyStartedError(LlmcoreError, RuntimeError):
    """A manager of that name lives already; use it, or choose another name."""


class AlreadyLoadedError(LlmcoreError, ValueError):
    """A model of that id is there already; unload it first, or say replace=True."""


class NotLoadedError(LlmcoreError, LookupError, ValueError):
    """The manager has no model of that id; names those that are like it."""


class NotReadyError(NotLoadedError):
    """
    The manager has the model, but it cannot be used now.

    Attributes:
        status: ``"loading"``, ``"unloading"`` or ``"failed"``.
    """

    def __init__(self, message: str = "", status: str = "") -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status)


# -- running -------------------------------------------------------------------------


class CapabilityError(LlmcoreError, RuntimeError):
    """The backend, or this model on it, does not declare the capability needed."""


class NoSequenceLeftError(LlmcoreError, RuntimeError):
    """All sequences of the context are taken; dispose one or ask for more."""


class ContextOverflowError(LlmcoreError, ValueError):
    """
    More tokens than the sequence can hold.

    Attributes:
        needed: Tokens the request needs.
        available: Tokens the sequence can hold.
    """

    def __init__(self, needed: int, available: int, what: str = "the prompt") -> None:
        super().__init__(
            f"{what} needs {needed} tokens but the sequence holds {available}: "
            f"shorten it or create the context with context_size={needed} or more"
        )
        self.needed = needed
        self.available = available
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.needed, self.available, self.what)


class QueueFullError(BusyError):
    """As many as may wait are waiting already; try again later."""


class OperationTimeoutError(LlmcoreError, TimeoutError):
    """The time that the caller gave is over; the sequence is free again."""


class OperationCancelledError(LlmcoreError, RuntimeError):
    """The caller cancelled this operation; nothing else is affected."""


class DecodeError(LlmcoreError, RuntimeError):
    """
    The engine failed to evaluate a batch.

    Core re-reads the engine's own positions before the next use, so the sequence
    stays usable.
    """


class DecodeAbortedError(DecodeError):
    """The evaluation stopped because `abort()` was called."""


class NoResultError(LlmcoreError, RuntimeError):
    """Nothing to return: nothing was evaluated yet, or the answer was cut off."""


class StateError(LlmcoreError, ValueError):
    """Saved sequence state is damaged or does not belong to this context."""


class StateMismatchError(StateError):
    """
    A saved state, or a receipt, was made by something else than what is here.

    Attributes:
        field: What differs, such as ``"model"`` or ``"kv_type_k"``.
        saved: Its value in the file.
        here: Its value here.
    """

    def __init__(
        self, field: str, saved: object, here: object, what: str = "state"
    ) -> None:
        way_out = (
            "load it where it was saved, or let its tokens be evaluated again with "
            "on_mismatch='evaluate'"
            if what == "state"
            else "use it where it was made"
        )
        super().__init__(
            f"this {what} does not belong here: its {field} is {saved!r} but it is "
            f"{here!r} here; {way_out}"
        )
        self.field = field
        self.saved = saved
        self.here = here
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.saved, self.here, self.what)


class ChatTemplateError(LlmcoreError, ValueError):
    """The model has no chat template, or its template failed or broke a limit."""


class BackendError(LlmcoreError, RuntimeError):
    """The engine raised something of its own; it is the ``__cause__``."""


class BackendCrashedError(BackendError):
    """The engine died; the objects on it are broken and can only be disposed."""
