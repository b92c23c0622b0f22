"""
The house rules that no other tool checks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("src", "conformance_tests/src")
TESTS = ("tests", "conformance_tests")
MOST_LINES = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(*folders: str) -> list[Path]:
    return sorted(path for f in folders for path in (ROOT / f).rglob("*.py"))


def nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    """Every syntax node below some folders, each with the place where it stands."""
    for path in modules(*folders):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_there_are_modules() -> None:
    """These tests look at something."""
    assert all(modules(folder) for folder in ("src", "tests"))


def test_length() -> None:
    """No module is longer than 400 lines."""
    lengths = {path: path.read_text("utf-8").count("\n") for path in modules("src")}

    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_claims() -> None:
    """Every test says in its docstring what it claims."""
    silent = [
        f"{place} {node.name}"
        for place, node in nodes(*TESTS)
        if isinstance(node, Function)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_no_sleep() -> None:
    """No test sleeps: it waits for an event instead."""
    sleeping = [
        place
        for place, node in nodes(*TESTS)
        if isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    ]

    assert sleeping == []


def test_no_del() -> None:
    """No class has `__del__`: it runs at any time, in any thread, on half an object."""
    finalizers = [
        place
        for place, node in nodes(*PACKAGES)
        if isinstance(node, Function) and node.name == "__del__"
    ]

    assert finalizers == []


def opening(message: ast.expr) -> str:
    """The constant text that a message begins with."""
    if isinstance(message, ast.JoinedStr) and message.values:
        message = message.values[0]
    return str(message.value) if isinstance(message, ast.Constant) else ""


def ending(message: ast.expr) -> str:
    """The constant text that a message ends with."""
    if isinstance(message, ast.JoinedStr) and message.values:
        message = message.values[-1]
    return str(message.value) if isinstance(message, ast.Constant) else ""


def test_messages() -> None:
    """Error messages begin in lower case and end without a full stop."""
    wrong = [
        f"{place} {ast.unparse(node)}"
        for place, node in nodes(*PACKAGES)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        for message in node.exc.args[-1:]
        if opening(message).split(" ")[0].istitle() or ending(message).endswith(".")
    ]

    assert wrong == []
