"""A load that runs: how far it is, and whether it is to stop."""

from __future__ import annotations

from pathlib import Path

from llmcore.errors import OperationCancelledError
from llmcore.spi import Progress


class Loading:
    """Carries progress out of the native call, and a wish to stop into it."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._share = -1.0
        self._stop: BaseException | None = None

    def receive(self, share: float, user_data: object = None) -> bool:
        """Called by the engine; it ends with 1.0, which is ours to say."""
        return self.report(share) if share < 1.0 else self._stop is None

    def report(self, share: float) -> bool:
        """Tell how far it is; keeps what the caller raises, as C must not see it."""
        if share > self._share and self._stop is None:
            self._share = share
            try:
                if not self._progress(share):
                    self._stop = OperationCancelledError(
                        f"loading {str(self._path)!r} was cancelled at {share:.0%}"
                    )
            except BaseException as error:
                self._stop = error
        return self._stop is None

    def stop_if_asked(self) -> None:
        """Raise what stopped it, if anything did."""
        if self._stop is not None:
            raise self._stop
