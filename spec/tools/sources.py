"""
Reads the tests and the mutants of the suite as text: nothing of them is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "conformance_tests/src/llmcore_conformance/suite"
MUTANTS = ROOT / "conformance_tests/selftest/mutants"


class Mutant(NamedTuple):
    """A deliberate defect: the clause that catches it, and what it is, in words."""

    kills: str
    name: str
    defect: str


def read_mutants() -> Iterator[Mutant]:
    """All mutants, in the order of their files."""
    for path in sorted(MUTANTS.glob("*.py")):
        for function in functions(path, ""):
            for call in calls(function, "mutant"):
                defect = " ".join((ast.get_docstring(function) or "").split())
                for keyword in call.keywords:
                    if keyword.arg == "kills":
                        yield Mutant(text(keyword.value), function.name, defect)


def functions(path: Path, prefix: str) -> Iterator[ast.FunctionDef]:
    """The functions of a file whose names begin so, in its order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith(prefix):
            yield node


def calls(function: ast.FunctionDef, name: str) -> Iterator[ast.Call]:
    """The decorators of a function that call something of that name."""
    for decorator in function.decorator_list:
        if (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Name)
            and decorator.func.id == name
        ):
            yield decorator


def text(node: ast.expr) -> str:
    """The value of a literal."""
    return str(ast.literal_eval(node))
