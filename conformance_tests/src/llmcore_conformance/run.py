"""
`Run`: one run of the suite, as a pytest plugin object; chooses tests, keeps results.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict

from llmcore_conformance.clauses import (
    Clause,
    Spec,
    SpecError,
    choose_spec,
    load_clauses,
)
from llmcore_conformance.deviations import (
    Deviation,
    DeviationError,
    check_matched,
    read_deviations,
)
from llmcore_conformance.model_files import NoModelError
from llmcore_conformance.profiles import PROFILES, profile_clauses
from llmcore_conformance.report import (
    TestRecord,
    build_report,
    claim_of,
    explain,
    id_of,
)
from llmcore_conformance.subject import Subject, find_subject
from llmcore_conformance.target import Target

WARNINGS = ("error", "ignore:.*was never disposed:ResourceWarning")
"""All warnings are errors, but a test need not dispose what it does not judge."""


class Run:
    """
    Lives as long as the pytest session.

    Args:
        target: What to test. If it needs a model file and has none, a tiny one is made.
    """

    def __init__(self, config: pytest.Config, target: Target) -> None:
        self._config = config
        self._files = Path(tempfile.mkdtemp(prefix="llmcore-conformance-"))
        self.spec = self._choose_spec()
        self.tests: dict[str, TestRecord] = {}
        self.subject = self._find_subject(target)
        self.profiles: list[str] = config.getoption("--llmcore-profile")
        self.deviations = self._read_deviations()
        for name in self.profiles:
            if name not in PROFILES:
                raise pytest.UsageError(
                    f"no profile {name!r}: there are {', '.join(PROFILES)}"
                )

    def _choose_spec(self) -> Spec:
        try:
            return choose_spec(self._config.getoption("--llmcore-spec"))
        except SpecError as error:
            raise pytest.UsageError(str(error)) from error

    def _find_subject(self, target: Target) -> Subject:
        try:
            return find_subject(target, self._files)
        except NoModelError as error:
            raise pytest.UsageError(str(error)) from error

    def _read_deviations(self) -> list[Deviation]:
        path = self._config.getoption("--llmcore-deviations")
        try:
            return read_deviations(Path(path), load_clauses()) if path else []
        except DeviationError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_report_header(self) -> list[str]:
        """Say what is tested."""
        info, target = self.subject.info, self.subject.target
        declared = ", ".join(sorted(self.subject.capabilities)) or "none"
        return [
            f"llmcore backend: {info.name}, written for spec {info.spec}, judged by "
            f"spec {self.spec.version}, model {target.model_path or 'none'}",
            f"llmcore capabilities: {declared}",
        ]

    # -- choosing the tests ------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the tests whose clause is asked for and applies here."""
        marked = [(item, self._clause_of(item)) for item in items]
        for item, clause in marked:
            if clause is not None:
                self.tests.setdefault(id_of(item), TestRecord(clause=clause.id))
                for rule in WARNINGS:
                    item.add_marker(pytest.mark.filterwarnings(rule))
        self._expect_deviations(marked)
        wanted = self._wanted()
        dropped = [i for i, clause in marked if clause and clause.id not in wanted]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [i for i, clause in marked if not clause or clause.id in wanted]

    def _clause_of(self, item: pytest.Item) -> Clause | None:
        marks = list(item.iter_markers("clause"))
        if not marks:
            return None
        if len(marks) > 1 or len(marks[0].args) != 1:
            raise pytest.UsageError(f"{item.nodeid} must name exactly one clause")
        id, known = marks[0].args[0], load_clauses()
        if id not in known:
            raise pytest.UsageError(f"{item.nodeid}: the spec has no clause {id!r}")
        return known[id]

    def _wanted(self) -> set[str]:
        patterns = self._config.getoption("--llmcore-clause") or ["*"]
        profiles = self.profiles or list(PROFILES)
        can = {None, *self.subject.capabilities}
        return {
            clause.id
            for name in profiles
            for clause in profile_clauses(name, self.spec.clauses)
            if clause.requires in can
            and any(fnmatch(clause.id, pattern) for pattern in patterns)
        }

    def _expect_deviations(
        self, marked: list[tuple[pytest.Item, Clause | None]]
    ) -> None:
        tests = {_name(item): clause.id for item, clause in marked if clause}
        try:
            expected = check_matched(self.deviations, tests)
        except DeviationError as error:
            raise pytest.UsageError(str(error)) from error
        for item, _ in marked:
            deviation = expected.get(_name(item))
            if deviation is not None:
                reason = f"{deviation.kind}: {deviation.reason}"
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))

    # -- keeping the results -----------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take note of a result, and say in a failure which clause is broken."""
        report = yield
        test = self.tests.get(id_of(item))
        if test is None:
            return report
        if report.failed:
            test.become("fail")
            text = explain(
                test.clause, _name(item), claim_of(item), _seen(call, report)
            )
            test.messages.append(text)
            report.sections.insert(0, ("Broken clause", text))
        elif hasattr(report, "wasxfail"):
            test.become("deviation")
        elif report.passed and report.when == "call":
            test.become("pass")
        return report

    # -- the report --------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """What is known so far, as `build_report` says."""
        return build_report(
            subject=self.subject,
            spec=self.spec,
            tests=self.tests,
            deviations=[asdict(deviation) for deviation in self.deviations],
            profiles=self.profiles or PROFILES,
        )

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Print what became of the profiles, and write the report."""
        report = self.report()
        terminalreporter.section("llmcore conformance")
        for profile in report["profiles"]:
            terminalreporter.line(profile["summary"])
        path = self._config.getoption("--llmcore-report")
        if path:
            text = json.dumps(report, indent=2) + "\n"
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")

    def pytest_unconfigure(self) -> None:
        """Remove the files of this run."""
        shutil.rmtree(self._files, ignore_errors=True)


def _name(item: pytest.Item) -> str:
    return item.name.partition("[")[0]


def _seen(call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if call.excinfo is None:
        return f"({report.when}): {report.longreprtext.strip().rpartition(chr(10))[2]}"
    return f"({report.when}): {call.excinfo.typename}: {call.excinfo.value}"
