"""
The table at the end of the run: each fault, and what came of it.
"""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each scenario that ran."""
    rows = [
        (
            str(report.user_properties[0][1]),
            report.outcome,
            dict(report.user_properties),
        )
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "scenario" in dict(report.user_properties)
    ]
    if not rows:
        return
    width = max(len(name) for name, _, _ in rows)
    terminalreporter.section("faults, in a process of their own each")
    for name, outcome, properties in sorted(rows):
        mark = "" if outcome == "passed" else "FAILED "
        told = str(properties.get("outcome", "?"))
        terminalreporter.write_line(f"{name:{width}}  {mark}{told}")
