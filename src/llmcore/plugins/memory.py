"""What earlier processes found out about backends, in a file of the user's cache."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from llmcore.plugins.trial import read_trial
from llmcore.plugins.values import Trial

KEPT = 7 * 86400.0
"""Seconds for which a good outcome is believed."""

KEPT_FAILURE = 3600.0
"""Seconds for which a bad one is: a driver may be repaired at any time."""


class Memory:
    """
    Trials by their keys. Any number of processes may share it.

    A file that is damaged, or cannot be read or written, only costs new trials.

    Args:
        path: The file; None to remember nothing.

        clock: Seconds since the epoch.
    """

    def __init__(
        self, path: Path | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock

    def recall(self, key: str) -> Trial | None:
        """A trial that is not too old; None if there is none."""
        return self._trial(self._entries().get(key))

    def keep(self, key: str, trial: Trial) -> None:
        """Remember a trial."""
        if self._path is None:
            return
        entries = {k: e for k, e in self._entries().items() if self._trial(e)}
        entries[key] = {"time": self._clock(), "trial": attrs.asdict(trial)}
        with contextlib.suppress(OSError):
            _replace(self._path, json.dumps(entries))

    def _entries(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            entries = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _trial(self, entry: Any) -> Trial | None:
        """What an entry says, if it can still be believed."""
        try:
            age = self._clock() - entry["time"]
            trial = read_trial(dict(entry["trial"]), remembered=True)
        except (LookupError, TypeError, ValueError):
            return None
        kept = KEPT_FAILURE if trial is not None and trial.failure else KEPT
        return trial if 0 <= age < kept else None


def _replace(path: Path, text: str) -> None:
    """Write a file at once, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def users_memory() -> Memory:
    """
    The memory of this user, where the platform wants programs to keep what they can do
    without: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home remembers nothing
        return Memory(None)
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", home)) / "llmcore" / "Cache"
    elif sys.platform == "darwin":
        folder = home / "Library" / "Caches" / "llmcore"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (base if base.is_absolute() else home / ".cache") / "llmcore"
    return Memory(folder / "trials.json")
