"""
A report in words, for the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BROKEN = ("crash", "fail")


def summarise(report: dict[str, Any]) -> Iterator[str]:
    """The lines that tell what was tested, how it did, and what is broken."""
    yield from _subject(report)
    yield ""
    for profile in report["profiles"]:
        yield profile["summary"]
    for id, clause in report["clauses"].items():
        if clause["outcome"] in BROKEN:
            yield ""
            yield f"{clause['outcome'].upper()} {id} ({clause['level']})"
            for message in clause["failures"]:
                yield from (f"  {line}" for line in message.splitlines())
    yield from _less(report)


def conforms(report: dict[str, Any]) -> bool:
    """Whether no profile is a failure."""
    return all(profile["result"] != "failure" for profile in report["profiles"])


def subject_name(report: dict[str, Any]) -> str:
    """The backend, and whether it was isolated."""
    subject = report["subject"]
    kind = f", isolation={subject['isolation']}" if subject["isolation"] else ""
    return f"{subject['backend']}{kind}"


def _subject(report: dict[str, Any]) -> Iterator[str]:
    subject, model = report["subject"], report["environment"]["model"]
    came = f"{subject['distribution']} {subject['version']}"
    yield (
        f"{subject_name(report)}: {came if subject['version'] else 'not installed'}, "
        f"{subject['engine'] or 'engine unknown'}, written for spec {subject['spec']}"
    )
    yield (
        f"judged by spec {report['spec']['version']} with suite "
        f"{report['suite']['version']} on llmcore {report['core']['version']}, "
        f"model {model['name'] if model else 'none'}"
    )
    if subject["problem"]:
        yield f"the model cannot be loaded, so nothing works: {subject['problem']}"
    emulated = [n for n, how in report["operations"].items() if how == "emulated"]
    if emulated:
        yield f"emulated by core: {', '.join(emulated)}"


def _less(report: dict[str, Any]) -> Iterator[str]:
    """What was declared to fail, and what was not run."""
    for deviation in report["deviations"]:
        yield ""
        yield f"DEVIATION {deviation['clause']} ({deviation['kind']})"
        yield f"  {deviation['test']}: {deviation['reason']}"
    missed = [id for id, c in report["clauses"].items() if c["outcome"] == "not-run"]
    if missed:
        yield ""
        yield f"NOT RUN: {len(missed)} clauses, such as {', '.join(missed[:5])}"
