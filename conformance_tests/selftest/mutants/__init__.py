"""
Mutants: broken backends and broken cores, each of which one clause must catch.

A mutant is a small function in a module of this folder:

    @mutant(kills="dispose.idempotent")
    def frees_twice(monkeypatch):
        monkeypatch.setattr(...)       # a broken core, or
        return lambda: BrokenBackend() # a broken backend in place of the null one

This package is also the pytest plugin that runs the suite against the mutant which the
environment variable ``LLMCORE_MUTANT`` names.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve, frozen

from llmcore import Backend
from llmcore_conformance.target import Target, find_target

VARIABLE = "LLMCORE_MUTANT"
CHILD = f"""\
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from mutants import mutated_target
target = mutated_target({{name!r}})
"""

Create = Callable[[], Backend]
"""Makes instances of a broken backend."""
Switch = Callable[[pytest.MonkeyPatch], Create | None]


@frozen(kw_only=True)
class Mutant:
    """
    One deliberate defect.

    Attributes:
        kills: The clause that must catch it.

        also: Other clauses that it breaks as well, each with the reason.
    """

    name: str
    kills: str
    also: dict[str, str]
    switch_on: Switch


MUTANTS: dict[str, Mutant] = {}


def mutant(
    *, kills: str, also: dict[str, str] | None = None
) -> Callable[[Switch], Switch]:
    """Declare a function that switches a defect on, and the clause that catches it."""

    def declare(switch_on: Switch) -> Switch:
        area = switch_on.__module__.rpartition(".")[2]
        name = f"{area}.{switch_on.__name__}"
        assert name not in MUTANTS, f"two mutants are named {name}"
        MUTANTS[name] = Mutant(
            name=name, kills=kills, also=also or {}, switch_on=switch_on
        )
        return switch_on

    return declare


def load_mutants() -> dict[str, Mutant]:
    """All mutants of this folder, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return MUTANTS


def mutated_target(name: str) -> Target:
    """Switch a mutant on in this process, for good; the target that shows it."""
    importlib.import_module(f"{__name__}.{name.partition('.')[0]}")
    factory = MUTANTS[name].switch_on(pytest.MonkeyPatch())
    target = evolve(find_target("null"), child=CHILD.format(name=name))
    if factory is None:
        return target
    return evolve(target, create=factory, describe=lambda: factory().info)


def pytest_llmcore_target(config: pytest.Config) -> Target | None:
    """The mutant that the environment names."""
    name = os.environ.get(VARIABLE)
    return None if name is None else mutated_target(name)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only some mutants can be seen in another process: save the others' time."""
    name = os.environ.get(VARIABLE)
    if name is None:
        return
    area = MUTANTS[name].kills.partition(".")[0]
    # Under a manager, and in another process, all else is as without: not seen twice.
    for other, stem in (("iso", "test_isolation"), ("manager", "test_manager")):
        if area != other:
            items[:] = [item for item in items if not item.path.stem.startswith(stem)]
    if area in ("exit", "plugin"):
        return
    outside = [
        item
        for item in items
        if "run_in_subprocess" in getattr(item, "fixturenames", ())
    ]
    items[:] = [item for item in items if item not in outside[1:]]
