"""
The journal of a run: a line of JSON for each step, on the disk before the step begins,
so that it tells what an engine did that took the whole process down.

    {"step": "tests", "count": 291}                   all that are to be run
    {"step": "start", "test": "test_exit.py::test_a", "clause": "...", "claim": "..."}
    {"step": "end", "test": ..., "outcome": "pass", "messages": [], ...}
    {"step": "crash", "test": ..., "outcome": "crash", "messages": ["..."], ...}
    {"step": "finish", "status": 0}                   the report is written

A run that is given a journal goes on where that one ended.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmcore_conformance.report import TestRecord, claim_of, id_of

if TYPE_CHECKING:
    from llmcore_conformance.run import Run

Line = dict[str, Any]


class Journal:
    """
    A file of lines. Each is with the operating system at once, which outlives us.

    Args:
        path: Is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._offset = 0

    def write(self, step: str, **facts: Any) -> None:
        """Append a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **facts}) + "\n")

    def news(self) -> list[Line]:
        """The lines since the last call, from the first on; only whole ones."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole = [line for line in file if line.endswith(b"\n")]
        self._offset += sum(map(len, whole))
        return [json.loads(line) for line in whole]


class Journalist:
    """
    Keeps the journal of a run, and spares it the tests that are in there; a plugin.

    Args:
        run: Learns from the journal what became of those tests.
    """

    def __init__(self, run: Run, journal: Journal) -> None:
        self._run = run
        self._journal = journal
        self._status: int | None = None  # until all tests are done

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what was run before."""
        done = self._restore()
        left = [item for item in items if id_of(item) not in done]
        if len(left) < len(items):
            old = [item for item in items if id_of(item) in done]
            config.hook.pytest_deselected(items=old)
            items[:] = left
        self._journal.write("tests", count=len(left))

    def _restore(self) -> set[str]:
        done: set[str] = set()
        for line in self._journal.news():
            if line["step"] not in ("end", "crash"):
                continue
            done.add(line["test"])
            self._run.tests[line["test"]] = TestRecord(
                clause=line["clause"],
                outcome=line["outcome"],
                messages=line["messages"],
            )
        return done

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item
    ) -> Generator[None, object, object]:
        """Write down a test before it begins, and what became of it."""
        record = self._run.tests.get(id_of(item))
        if record is None:  # not a test of the suite
            return (yield)
        facts = {
            "test": id_of(item),
            "clause": record.clause,
            "claim": claim_of(item),
        }
        self._journal.write("start", **facts)
        result = yield
        self._journal.write(
            "end", **facts, outcome=record.outcome, messages=record.messages
        )
        return result

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Remember with what the process is to end."""
        self._status = int(exitstatus)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Nothing is left to do but to end the process."""
        if self._status is not None:
            self._journal.write("finish", status=self._status)
