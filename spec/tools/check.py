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
from pathlib import Path
from typing import Any

from extract import INDEXES, SPEC, SpecError, build

from llmcore.values import Capability

TESTS = SPEC.parent / "conformance_tests/src/llmcore_conformance/suite"
MUTANTS = SPEC.parent / "conformance_tests/selftest/mutants"


def problems() -> Iterator[str]:
    """What is wrong, a line for each."""
    try:
        text = build()
    except SpecError as error:
        yield str(error)
        return
    for path in INDEXES:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{path.name} is out of date: run python spec/tools/extract.py"
    clauses = {entry["id"]: entry for entry in json.loads(text)["clauses"]}
    yield from _check_requires(clauses)
    yield from _check_tests(clauses)
    yield from _check_mutants(clauses)


def _check_requires(clauses: dict[str, Any]) -> Iterator[str]:
    for id, clause in clauses.items():
        if clause["requires"] not in {None, *Capability}:
            yield f"[{id}] requires {clause['requires']!r}: no such capability"


def _check_tests(clauses: dict[str, Any]) -> Iterator[str]:
    tested = set()
    for path in sorted(TESTS.glob("test_*.py")):
        for function in _functions(path, "test_"):
            named = [_text(c.args[0]) for c in _calls(function, "clause") if c.args]
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
    killed = {
        _text(keyword.value)
        for path in MUTANTS.glob("*.py")
        for function in _functions(path, "")
        for call in _calls(function, "mutant")
        for keyword in call.keywords
        if keyword.arg == "kills"
    }
    yield from (
        f"a mutant kills {id!r}: no such clause" for id in killed - set(clauses)
    )
    for id, clause in clauses.items():
        if clause["level"].startswith("MUST") and id not in killed:
            yield f"[{id}] binds and has no mutant"


def _functions(path: Path, prefix: str) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith(prefix):
            yield node


def _calls(function: ast.FunctionDef, name: str) -> Iterator[ast.Call]:
    for decorator in function.decorator_list:
        if (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Name)
            and decorator.func.id == name
        ):
            yield decorator


def _text(node: ast.expr) -> str:
    return str(ast.literal_eval(node))


def main() -> int:
    """Print what is wrong; the exit status says whether anything is."""
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
