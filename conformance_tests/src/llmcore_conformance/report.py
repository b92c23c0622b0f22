"""
The report of a run: what became of each clause, and of each profile, as plain JSON.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from attrs import define, field

import llmcore
from llmcore.plugins.support import support
from llmcore.values import SPEC_VERSION, Capability
from llmcore_conformance import __version__
from llmcore_conformance.clauses import Clause, Spec, load_causes, load_clauses
from llmcore_conformance.emulation import kept_by_emulation
from llmcore_conformance.profiles import PROFILES, judge
from llmcore_conformance.subject import Subject
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


def id_of(item: pytest.Item) -> str:
    """The name of a test in journal and report, wherever pytest was started."""
    return f"{item.path.name}::{item.name}"


def claim_of(item: pytest.Item) -> str:
    """What a test claims: its docstring, on one line."""
    return " ".join((getattr(item, "function", item).__doc__ or "").split())


def explain(
    clause: str, test: str, claim: str, seen: str, causes: Sequence[str] | None = None
) -> str:
    """
    What a failure says: it can be understood without the source of the test.

    Args:
        clause: Its id.

        seen: Begins with ``"(when): "``.

        causes: The likely ones; None for the defects known to break the clause.
    """
    if causes is None:
        causes = load_causes().get(clause, ["not known"])
    return (
        f"{load_clauses()[clause]}\n"
        f"the test {test} claims: {claim}\n"
        f"seen {seen}\n"
        f"likely cause: {' Or: '.join(causes)}"
    )


def clause_outcomes(
    clauses: Mapping[str, Clause],
    tests: Iterable[TestRecord],
    capabilities: frozenset[Capability],
) -> dict[str, str]:
    """What became of each clause."""
    found: dict[str, set[str]] = {id: set() for id in clauses}
    for test in tests:
        if test.clause in found:
            found[test.clause].add(test.outcome)
    return {
        id: "not-supported"
        if clause.requires is not None and clause.requires not in capabilities
        else next((o for o in WORST if o in found[id]), "not-run")
        for id, clause in clauses.items()
    }


def build_report(
    *,
    subject: Subject,
    spec: Spec,
    tests: Mapping[str, TestRecord],
    deviations: list[dict[str, Any]],
    profiles: Iterable[str] = PROFILES,
) -> dict[str, Any]:
    """The whole report of a run."""
    clauses, capabilities = spec.clauses, subject.capabilities
    outcomes = clause_outcomes(clauses, tests.values(), capabilities)
    operations = support(capabilities - subject.target.lent)
    emulated = kept_by_emulation(operations)
    return {
        "report_version": REPORT_VERSION,
        "spec": {"version": spec.version, "digest": spec.digest},
        "suite": {"version": __version__},
        "core": {"version": llmcore.__version__, "spec": SPEC_VERSION},
        "subject": _describe(subject),
        "environment": _environment(subject.target),
        "capabilities": {
            "declared": sorted(capabilities),
            "not_supported": sorted(set(Capability) - capabilities),
        },
        "operations": dict(operations),
        "profiles": [judge(name, clauses, outcomes) for name in profiles],
        "clauses": {
            id: _clause(clause, outcomes[id], id in emulated, tests)
            for id, clause in clauses.items()
        },
        "deviations": deviations,
    }


def _clause(
    clause: Clause, outcome: str, emulated: bool, tests: Mapping[str, TestRecord]
) -> dict[str, Any]:
    mine = {name: test for name, test in tests.items() if test.clause == clause.id}
    return {
        "outcome": outcome,
        "level": clause.level,
        "emulated": emulated and outcome != "not-supported",
        "tests": {name: test.outcome for name, test in mine.items()},
        "failures": [message for test in mine.values() for message in test.messages],
    }


def _describe(subject: Subject) -> dict[str, Any]:
    info, name = subject.info, subject.target.name
    distribution, _, own_name = name.partition(":")
    installed = _version(distribution) if own_name == info.name else None
    return {
        "backend": info.name,
        "isolation": subject.target.isolation,
        "distribution": distribution if installed else None,
        "version": installed,
        "spec": info.spec,
        "engine": "" if subject.model is None else subject.model.build,
        "problem": subject.problem,
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
        "model": model,
    }
