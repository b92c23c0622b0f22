"""
The report of a run: what became of each clause, and of each profile, as plain JSON.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from attrs import define, field

import llmcore
from llmcore.values import SPEC_VERSION, BackendInfo, Capability
from llmcore_conformance import __version__
from llmcore_conformance.clauses import Clause, spec_digest
from llmcore_conformance.profiles import PROFILES, judge
from llmcore_conformance.target import Target

REPORT_VERSION = 1
WORST = ("crash", "fail", "deviation", "not-run", "pass")
"""What a test can become; a clause becomes the worst that its tests became."""


@define(kw_only=True)
class TestRecord:
    """One test of the suite: the clause it proves, and what became of it."""

    clause: str
    outcome: str = "not-run"
    messages: list[str] = field(factory=list)

    def become(self, outcome: str) -> None:
        """Take note of a result; the worst one stays, and any beats none."""
        if self.outcome == "not-run" or WORST.index(outcome) < WORST.index(
            self.outcome
        ):
            self.outcome = outcome


def clause_outcomes(
    clauses: Mapping[str, Clause],
    tests: Iterable[TestRecord],
    capabilities: frozenset[Capability],
) -> dict[str, str]:
    """What became of each clause."""
    found: dict[str, set[str]] = {id: set() for id in clauses}
    for test in tests:
        found[test.clause].add(test.outcome)
    return {
        id: "not-supported"
        if clause.requires is not None and clause.requires not in capabilities
        else next((o for o in WORST if o in found[id]), "not-run")
        for id, clause in clauses.items()
    }


def build_report(
    *,
    target: Target,
    clauses: Mapping[str, Clause],
    tests: Mapping[str, TestRecord],
    capabilities: frozenset[Capability],
    deviations: list[dict[str, Any]],
    profiles: Iterable[str] = PROFILES,
) -> dict[str, Any]:
    """The whole report of a run."""
    outcomes = clause_outcomes(clauses, tests.values(), capabilities)
    return {
        "report_version": REPORT_VERSION,
        "spec": {"version": SPEC_VERSION, "digest": spec_digest()},
        "suite": {"version": __version__},
        "subject": _subject(target.describe()),
        "environment": _environment(target),
        "capabilities": {
            "declared": sorted(capabilities),
            "not_supported": sorted(set(Capability) - capabilities),
        },
        "profiles": [judge(name, clauses, outcomes) for name in profiles],
        "clauses": {
            id: {
                "outcome": outcomes[id],
                "level": clauses[id].level,
                "tests": {n: t.outcome for n, t in tests.items() if t.clause == id},
                "failures": [
                    m for t in tests.values() if t.clause == id for m in t.messages
                ],
            }
            for id in clauses
        },
        "deviations": deviations,
    }


def _subject(info: BackendInfo) -> dict[str, Any]:
    module = info.factory.partition(".")[0].partition(":")[0]
    names = packages_distributions().get(module, [])
    return {
        "backend": info.name,
        "distribution": names[0] if names else None,
        "version": _version(names[0]) if names else None,
        "protocol": info.spec,
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _environment(target: Target) -> dict[str, Any]:
    path, model = target.model_path, None
    if path is not None and path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        model = {"name": path.name, "sha256": digest}
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "llmcore": llmcore.__version__,
        "model": model,
    }
