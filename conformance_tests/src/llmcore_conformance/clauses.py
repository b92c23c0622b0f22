"""
The clauses of the spec, as the index that is generated from its text has them.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from llmcore.values import SPEC_VERSION

_INDEX = files(__package__) / "_spec" / "clauses.json"
_CAUSES = files(__package__) / "_spec" / "causes.json"


class SpecError(ValueError):
    """The spec that was asked for is not the one that this suite tests."""


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


@frozen(kw_only=True)
class Spec:
    """
    An edition of the spec.

    Attributes:
        version: ``"MAJOR.MINOR"``; no clause of it is newer.

        digest: Of the whole index; tells one edition from another.

        clauses: By id, in the order of the spec.
    """

    version: str
    digest: str
    clauses: dict[str, Clause]


@cache
def load_spec() -> Spec:
    """The edition that this suite tests."""
    return _parse(_INDEX.read_bytes())


def load_clauses() -> dict[str, Clause]:
    """All clauses that this suite tests."""
    return load_spec().clauses


@cache
def load_causes() -> dict[str, list[str]]:
    """For each clause, the defects that are known to break it, in words."""
    causes: dict[str, list[str]] = json.loads(_CAUSES.read_bytes())
    return causes


def choose_spec(wanted: str | None) -> Spec:
    """
    The clauses to judge by.

    Args:
        wanted: A version, to leave newer clauses out; or where the text or the index of
            a spec lies, to be sure that it is the one of this suite.

    Raises:
        SpecError: It is another one, or this suite does not suit the core here.
    """
    ours = load_spec()
    if not _older(ours.version, SPEC_VERSION):
        raise SpecError(
            f"this suite tests spec {ours.version} and the llmcore installed here "
            f"implements {SPEC_VERSION}: pip install "
            f"'llmcore-conformance=={SPEC_VERSION}.*'"
        )
    if wanted is None:
        return ours
    if not re.fullmatch(r"\d+\.\d+", wanted):
        _check_same(ours, Path(wanted))
        return ours
    if not _older(wanted, ours.version):
        raise SpecError(
            f"this suite tests spec {ours.version}, not {wanted}: pip install "
            f"'llmcore-conformance=={wanted}.*'"
        )
    kept = {id: c for id, c in ours.clauses.items() if _older(c.since, wanted)}
    return evolve(ours, version=wanted, clauses=kept)


def _check_same(ours: Spec, path: Path) -> None:
    file = path / "clauses.json" if path.is_dir() else path
    try:
        theirs = _parse(file.read_bytes())
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise SpecError(f"cannot read the spec in {str(file)!r}: {error}") from error
    if theirs.digest == ours.digest:
        return
    ids = sorted(
        id
        for id in ours.clauses.keys() | theirs.clauses.keys()
        if ours.clauses.get(id) != theirs.clauses.get(id)
    )
    raise SpecError(
        f"the spec in {str(file)!r} (version {theirs.version}) is not the one that "
        f"this suite tests (version {ours.version}); they differ in {', '.join(ids)}"
    )


def _parse(data: bytes) -> Spec:
    index: dict[str, Any] = json.loads(data)
    return Spec(
        version=index["version"],
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
        clauses={entry["id"]: Clause(**entry) for entry in index["clauses"]},
    )


def _older(version: str, than: str) -> bool:
    """Whether it has the same major number, and no newer minor one."""
    (major, minor), (their_major, their_minor) = (
        map(int, text.split(".")) for text in (version, than)
    )
    return major == their_major and minor <= their_minor
