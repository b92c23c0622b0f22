"""
`Table`: which models there are, by id.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Hashable
from difflib import get_close_matches

from llmcore.errors import AlreadyLoadedError, NotLoadedError, NotReadyError
from llmcore.manager.entry import Entry


class Default(enum.Enum):
    """Stands for the id of the model that is the default."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default.DEFAULT


class Table:
    """
    Lives as long as its manager.

    Reading takes no lock, so no look-up ever waits for a load or an unload. Writing is
    done under `lock`, for a few lines at a time.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.default: Hashable | None = None
        self._entries: dict[Hashable, Entry] = {}

    def all(self) -> list[Entry]:
        """Every model, the oldest first."""
        return list(self._entries.values())

    def find(self, id: Hashable) -> Entry | None:
        """The model of an id, or of `DEFAULT`; None if there is none."""
        return self._entries.get(self.default if id is DEFAULT else id)

    def get(self, id: Hashable) -> Entry:
        """
        The model of an id, whatever its status.

        Raises:
            NotLoadedError: There is none; names ids that are like it.
        """
        entry = self.find(id)
        if entry is not None:
            return entry
        if id is DEFAULT:
            raise NotLoadedError(
                "no model is the default: load one with default=True, or call "
                "set_default()"
            )
        raise NotLoadedError(f"no model {id!r} is loaded: {self._hint(id)}")

    def ready(self, id: Hashable) -> Entry:
        """
        The model of an id, ready for requests.

        Raises:
            NotLoadedError: There is none.

            NotReadyError: It cannot be used now; says why.
        """
        entry = self.get(id)
        if entry.status != "ready":
            raise not_ready(entry)
        return entry

    def _hint(self, id: Hashable) -> str:
        names = {str(known): known for known in list(self._entries)}
        alike = get_close_matches(str(id), names, n=3)
        if alike:
            return "did you mean " + " or ".join(repr(names[a]) for a in alike) + "?"
        if names:
            return "there are " + ", ".join(repr(known) for known in names.values())
        return "there is none at all"

    # -- under the lock ----------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """
        Raises:
            AlreadyLoadedError: A model of that id is there, and did not fail.
        """
        old = self._entries.get(entry.id)
        if old is not None and old.status != "failed":
            raise AlreadyLoadedError(
                f"{old.label} is {old.status} already: unload it first, or load with "
                "replace=True"
            )
        self._entries[entry.id] = entry

    def remove(self, entry: Entry) -> None:
        """Forget a model, unless another one has its id by now."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]
            if self.default == entry.id:
                self.default = None


def not_ready(entry: Entry) -> NotReadyError:
    """The error that says why a model cannot be used now."""
    why = f": {entry.error}" if entry.error else ""
    fix = {
        "loading": "wait for the load, or look at its progress with info()",
        "unloading": "load it again",
        "failed": "load it again",
    }.get(entry.status, "try again")
    return NotReadyError(f"{entry.label} is {entry.status}{why}: {fix}", entry.status)
