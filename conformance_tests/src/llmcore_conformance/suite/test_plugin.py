"""Plugins: loading.md."""

from __future__ import annotations

from llmcore_conformance import clause
from llmcore_conformance.fixtures import RunInSubprocess
from llmcore_conformance.target import Target

READ_INFO = """
import sys
from importlib.metadata import packages_distributions
from packaging.requirements import Requirement

info = target.describe()
engine = {info.factory.partition(":")[0]}
required = {Requirement(text).name.lower() for text in info.requires}
for package, names in packages_distributions().items():
    if required & {name.lower() for name in names}:
        engine.add(package)
print("imported:", *sorted(engine & set(sys.modules)))
"""


@clause("plugin.light-import")
def test_reading_the_info_imports_no_engine(
    target: Target, run_in_subprocess: RunInSubprocess
) -> None:
    """Neither the factory's module nor a package it requires is imported."""
    done = run_in_subprocess(READ_INFO)
    assert done.stdout.strip() == "imported:", (
        f"{target.name}: {done.stdout}{done.stderr}"
    )


@clause("plugin.info-static")
def test_the_info_is_the_same_each_time(target: Target) -> None:
    """Asking a plugin twice gives equal facts."""
    assert target.describe() == target.describe()
