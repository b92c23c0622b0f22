"""
Checks that spec, suite and mutants belong together.

    python spec/tools/check.py

The index must be up to date; each clause must name a capability that exists, and have
a test; each binding clause must have a mutant; each test must name one clause.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from typing import Any

from extract import CAUSES, INDEXES, SpecError, build, build_causes
from sources import TESTS, calls, functions, read_mutants, text

from llmcore.values import SPEC_VERSION, Capability
from llmcore_conformance import __version__ as suite_version


def problems() -> Iterator[str]:
    """What is wrong, a line for each."""
    try:
        built = build()
    except SpecError as error:
        yield str(error)
        return
    wanted = dict.fromkeys(INDEXES, built) | {CAUSES: build_causes()}
    for path, content in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            yield f"{path.name} is out of date: run python spec/tools/extract.py"
    index = json.loads(built)
    yield from _check_versions(index["version"])
    clauses = {entry["id"]: entry for entry in index["clauses"]}
    yield from _check_requires(clauses)
    yield from _check_tests(clauses)
    yield from _check_mutants(clauses)


def _check_versions(spec: str) -> Iterator[str]:
    if spec != SPEC_VERSION:
        yield f"the spec has version {spec}, llmcore.values says {SPEC_VERSION}"
    if not suite_version.startswith(f"{spec}."):
        yield f"the suite has version {suite_version}, it must start with {spec}"


def _check_requires(clauses: dict[str, Any]) -> Iterator[str]:
    for id, clause in clauses.items():
        if clause["requires"] not in {None, *Capability}:
            yield f"[{id}] requires {clause['requires']!r}: no such capability"


def _check_tests(clauses: dict[str, Any]) -> Iterator[str]:
    tested = set()
    for path in sorted(TESTS.glob("test_*.py")):
        for function in functions(path, "test_"):
            named = [text(c.args[0]) for c in calls(function, "clause") if c.args]
            where = f"{path.name}::{function.name}"
            if len(named) != 1:
                yield f"{where} must name exactly one clause, it names {named}"
            if not ast.get_docstring(function):
                yield f"{where} has no docstring: what does it claim?"
            yield from (
                f"{where}: no clause {id!r}" for id in set(named) - set(clauses)
            )
            tested.update(named)
    yield from (f"[{id}] has no test" for id in clauses if id not in tested)


def _check_mutants(clauses: dict[str, Any]) -> Iterator[str]:
    mutants = list(read_mutants())
    killed = {mutant.kills for mutant in mutants}
    yield from (
        f"the mutant {mutant.name} has no docstring: what is the defect?"
        for mutant in mutants
        if not mutant.defect
    )
    yield from (
        f"a mutant kills {id!r}: no such clause" for id in killed - set(clauses)
    )
    for id, clause in clauses.items():
        if clause["level"].startswith("MUST") and id not in killed:
            yield f"[{id}] binds and has no mutant"


def main() -> int:
    """Print what is wrong; the exit status says whether anything is."""
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
