"""
Writes the index of the clauses, ``spec/clauses.json``, from the text of the spec.

    python spec/tools/extract.py

The package of the suite has a copy of the index, so that it can be installed alone. It
also gets the likely causes of each failure: the defects of the mutants that its clause
is known to catch.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sources import ROOT, TESTS, read_mutants

SPEC = ROOT / "spec"
PACKAGED = TESTS.parent / "_spec"
INDEXES = (SPEC / "clauses.json", PACKAGED / "clauses.json")
CAUSES = PACKAGED / "causes.json"
AREAS = (
    *("loading", "context", "sequence", "state", "generation", "sampling"),
    *("prediction", "engine", "capabilities"),
    *("lifecycle", "threads", "errors", "exit", "isolation"),
    *("telemetry", "memory", "manager"),
)
"""The parts of the spec, in the order of an object's life."""

KEYWORD = re.compile(
    r"\b(MUST NOT|MUST|SHALL NOT|SHALL|SHOULD NOT|SHOULD|REQUIRED|RECOMMENDED|"
    r"MAY|OPTIONAL)\b"
)
HEAD = re.compile(r"^### \[([^\]]*)\] (.+)$", re.MULTILINE)
FACTS = re.compile(r"^since (\d+\.\d+) · requires: ([a-z-]+)$", re.MULTILINE)
ID = re.compile(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*")


class SpecError(ValueError):
    """A clause is not well formed; the message says where and why."""


def parse(text: str, file: str) -> list[dict[str, Any]]:
    """
    The clauses of one part of the spec.

    Raises:
        SpecError: One of them is not well formed.
    """
    heads = list(HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        _clause(head[1], head[2].strip(), text[head.end() : end], file)
        for head, end in zip(heads, ends, strict=True)
    ]


def _clause(id: str, title: str, body: str, file: str) -> dict[str, Any]:
    def require(condition: object, problem: str) -> None:
        if not condition:
            raise SpecError(f"{file}: clause [{id}] {problem}")

    require(ID.fullmatch(id), "needs an id like area.some-words")
    lines = [line[1:].strip() for line in body.splitlines() if line.startswith(">")]
    sentence = " ".join(lines).replace("**", "")
    keywords = KEYWORD.findall(sentence)
    require(len(keywords) == 1, f"must have one RFC 2119 keyword, has {keywords}")
    facts = FACTS.findall(body)
    require(len(facts) == 1, "needs one line 'since 1.0 · requires: ...'")
    require("\nWhy: " in body, "needs a line 'Why: ...'")
    since, requires = facts[0]
    return {
        "id": id,
        "title": title,
        "text": sentence,
        "level": keywords[0],
        "requires": None if requires == "none" else requires,
        "since": since,
        "file": file,
    }


def version() -> str:
    """The version in the title of the spec."""
    title = (SPEC / "README.md").read_text(encoding="utf-8").partition("\n")[0]
    found = re.search(r"version (\d+\.\d+)$", title)
    if found is None:
        raise SpecError("README.md: the title must end with 'version MAJOR.MINOR'")
    return found[1]


def build() -> str:
    """
    The text of the index.

    Raises:
        SpecError: A clause is not well formed, or two have the same id.
    """
    clauses: list[dict[str, Any]] = []
    for area in AREAS:
        path = SPEC / f"{area}.md"
        if path.exists():
            clauses += parse(path.read_text(encoding="utf-8"), path.name)
    seen: set[str] = set()
    for clause in clauses:
        if clause["id"] in seen:
            raise SpecError(f"{clause['file']}: [{clause['id']}] is there twice")
        seen.add(clause["id"])
    index = {"version": version(), "clauses": clauses}
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def build_causes() -> str:
    """The text of the list of likely causes, by clause."""
    causes: dict[str, list[str]] = {}
    for mutant in read_mutants():
        causes.setdefault(mutant.kills, []).append(mutant.defect)
    return json.dumps(causes, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write the index, and the causes."""
    text = build()
    for path in INDEXES:
        path.write_text(text, encoding="utf-8")
    CAUSES.write_text(build_causes(), encoding="utf-8")
    print(f"{text.count(chr(34) + 'id' + chr(34))} clauses")


if __name__ == "__main__":
    main()
