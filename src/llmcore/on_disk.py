"""
What can be saved to a file and loaded again.
"""

from __future__ import annotations

import abc
import os
from functools import partial
from typing import Literal

Path = str | os.PathLike[str]
OnMismatch = Literal["error", "evaluate"]
"""Raise, or evaluate the saved tokens again, if a state belongs to another engine."""


class OnDisk(abc.ABC):
    """The asynchronous twins of `save` and `load`."""

    @abc.abstractmethod
    def save(self, path: Path) -> None:
        """Write what this holds to a file, whole or not at all."""

    @abc.abstractmethod
    def load(self, path: Path, *, on_mismatch: OnMismatch = "error") -> None:
        """Replace what this holds by what a file holds."""

    async def asave(self, path: Path) -> None:
        """`save` without blocking the event loop."""
        from anyio import to_thread

        await to_thread.run_sync(self.save, path)

    async def aload(self, path: Path, *, on_mismatch: OnMismatch = "error") -> None:
        """`load` without blocking the event loop."""
        from anyio import to_thread

        await to_thread.run_sync(partial(self.load, path, on_mismatch=on_mismatch))
