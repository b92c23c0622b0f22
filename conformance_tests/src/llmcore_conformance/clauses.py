"""
The clauses of the spec, as the index that is generated from its text has them.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files

from attrs import frozen

_INDEX = files(__package__) / "_spec" / "clauses.json"


@frozen(kw_only=True)
class Clause:
    """
    One normative sentence.

    Attributes:
        id: ``area.slug``; never changes and is never used again.

        level: Its RFC 2119 keyword, such as ``"MUST"``.

        requires: The capability without which it does not apply, or None.
    """

    id: str
    title: str
    text: str
    level: str
    requires: str | None
    since: str
    file: str

    @property
    def binding(self) -> bool:
        """Whether a backend that breaks it does not conform."""
        return self.level in ("MUST", "MUST NOT")

    def __str__(self) -> str:
        return f"[{self.id}] {self.text}"


@cache
def load_clauses() -> dict[str, Clause]:
    """All clauses by id, in the order of the spec."""
    index = json.loads(_INDEX.read_text(encoding="utf-8"))
    return {entry["id"]: Clause(**entry) for entry in index["clauses"]}


@cache
def spec_digest() -> str:
    """Says which edition of the clauses this is."""
    return "sha256:" + hashlib.sha256(_INDEX.read_bytes()).hexdigest()
