"""One progress for a model that is fetched and then loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llmcore.sources.fetching import resolve
from llmcore.sources.source import Source

FETCHING = 0.9
"""The share of a load that its download is, if there is one."""


class Load:
    """
    Passes the progress of a load on, and knows whether to stop; lives as long as it.

    Args:
        progress: Called with 0.0 to 1.0; returning False cancels.
    """

    def __init__(self, progress: Callable[[float], object] | None) -> None:
        self._progress = progress
        self._fetched = 0.0
        self._cancelled = False
        self._error: BaseException | None = None

    def cancel(self) -> None:
        """Stop at the next report. Any thread."""
        self._cancelled = True

    def file_of(self, name: str | os.PathLike[str] | Source) -> Path:
        """
        The file of this machine that a name means, fetched if it is elsewhere.

        Raises:
            SourceError, OperationCancelledError: As `resolve`.
        """
        source = Source.parse(name)
        if source.scheme == "path":  # which an engine may take for anything
            return Path(source.name)
        return resolve(source, progress=self._fetch).path

    def _fetch(self, share: float) -> bool:
        self._fetched = FETCHING
        return self._tell(share * FETCHING)

    def report(self, share: float) -> bool:
        """Called by the backend, perhaps from native code: must not raise."""
        return self._tell(self._fetched + share * (1.0 - self._fetched))

    def _tell(self, share: float) -> bool:
        if self._progress is not None and not self._cancelled:
            try:
                if self._progress(share) is False:
                    self._cancelled = True
            except BaseException as error:
                self._error = error
                self._cancelled = True
        return not self._cancelled

    def reraise(self) -> None:
        """Raise what the caller's own callback raised."""
        if self._error is not None:
            raise self._error
