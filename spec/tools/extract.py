"""
Writes the index of the clauses, ``spec/clauses.json``, from the text of the spec.

    python spec/tools/extract.py

The package of the suite has a copy of the index, so that it can be installed alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SPEC = Path(__file__).parents[1]
INDEXES = (
    SPEC / "clauses.json",
    SPEC.parent / "conformance_tests/src/llmcore_conformance/_spec/clauses.json",
)
AREAS = (
    *("loading", "context", "sequence", "state", "generation", "sampling"),
    *("prediction", "engine", "capabilities"),
    *("lifecycle", "threads", "errors", "exit"),
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
    return json.dumps({"clauses": clauses}, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the index."""
    text = build()
    for path in INDEXES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{text.count(chr(34) + 'id' + chr(34))} clauses")


if __name__ == "__main__":
    main()
