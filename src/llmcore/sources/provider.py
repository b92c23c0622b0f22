"""What stands behind a scheme: core's own, or that of a plugin."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

from attrs import define, evolve, field

from llmcore.errors import OperationCancelledError
from llmcore.model_file import check_model_file
from llmcore.sources.source import Source
from llmcore.sources.values import Located, Progress, Resolved, Share


@define(kw_only=True)
class Request:
    """
    How a model is to be fetched; lives as long as that takes.

    Attributes:
        revision: Which one, where a source has several; None for its usual one.

        cache_dir: Where to keep files; None for the usual place.

        token: What proves who asks; None for the one that is stored, False for none.

        force: Fetch again what is here already.

        offline: Use only what is here.
    """

    revision: str | None = None
    cache_dir: Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    force: bool = False
    offline: bool = False
    _progress: Progress | None = None
    _cancel: threading.Event = field(factory=threading.Event)
    _stopped: bool = field(default=False, init=False)
    _raised: BaseException | None = field(default=None, init=False)

    def check(self) -> None:
        """
        Go on, unless the caller does not want to.

        Raises:
            OperationCancelledError: Let it pass, and keep what was fetched.
        """
        if self._stopped or self._cancel.is_set():
            raise OperationCancelledError(
                "the download was cancelled: what was fetched is kept for the next one"
            )

    def report(self, done: int, total: int) -> None:
        """
        Say how far it is, in bytes; call it every second or more often.

        Raises:
            OperationCancelledError: As `check`.
        """
        if self._progress is not None:
            try:
                go_on = self._progress(Share(done, total))
            except BaseException as error:
                self._raised = error
                raise
            self._stopped = go_on is False
        self.check()

    def wait(self, seconds: float) -> None:
        """
        Let some time pass.

        Raises:
            OperationCancelledError: At once if the caller cancels.
        """
        self._cancel.wait(seconds)
        self.check()

    def reraise(self) -> None:
        """Raise what the caller's own ``progress`` raised, if it did."""
        if self._raised is not None:
            raise self._raised


class ModelSource(ABC):
    """
    Fetches the models of one scheme; made once for each process, at first use.

    Any thread may call it, several at once. What it raises becomes a `SourceError`,
    unless it is an error of llmcore already.
    """

    @abstractmethod
    def resolve(self, source: Source, request: Request) -> Resolved:
        """
        Bring a model to this machine, unless it is here.

        Args:
            source: ``source.name`` is what stood behind the colon.

            request: What to mind; call its `Request.report` while bytes come in.

        Raises:
            SourceError: With the reason in words.
        """

    def header(self, source: Source, request: Request) -> Located:
        """
        Find the header of a model, better without fetching all of it.

        Without a way of its own a source fetches the model and reads it here.

        Raises:
            SourceError: With the reason in words.
        """
        return with_local_header(self.resolve(source, request))


def with_local_header(resolved: Resolved) -> Resolved:
    """
    The same with the header of the file, if it is a GGUF file.

    Raises:
        ModelLoadError: It is one, but not a sound one.
    """
    return evolve(resolved, header=check_model_file(resolved.path, ("gguf", "other")))
