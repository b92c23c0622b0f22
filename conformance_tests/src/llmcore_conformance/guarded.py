"""
A run of the suite that outlives the engine: what crashes or hangs is a child process,
the test that did it is written down as a crash, and a new child does the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmcore_conformance.journal import Journal, Line
from llmcore_conformance.report import explain

POLL = 0.1
"""Seconds between two looks at the journal."""

STARTUP = 60.0
"""Seconds that a child has at least until the first test."""

SETTINGS = """\
[pytest]
addopts =
faulthandler_timeout = {limit}
"""

USAGE_ERROR = 4
"""Exit code of pytest if it refuses its options."""
LAST_WORDS = 8
"""Lines of a dead child's output that are shown."""

AFTER_ALL, EXIT_CLAUSE = "the end of the process", "exit.clean"
"""What a child breaks that dies when all of its tests are done."""
DUMP = ("    Fatal Python error", "    Timeout (")
STACK = ("    Current thread 0x", "    Thread 0x")
"""How Python begins its stacks, and each of them; the one that crashed is the last."""

CAUSES = (
    "Native code was given what it does not check, or what was freed already.",
    "A lock is waited for that nobody gives back.",
)

EXIT_CLAIM = "A process in which the engine was used ends by itself."


class SuiteError(Exception):
    """The suite did not get as far as a test."""


class UsageError(SuiteError):
    """It refused its options."""


def run_guarded(
    options: Sequence[str],
    *,
    limit: float,
    tell: Callable[[Line], object] = lambda line: None,
) -> dict[str, Any]:
    """
    Run the suite in child processes until each test was run once.

    Args:
        options: Of the suite, such as ``"--llmcore-backend=null"``.

        limit: Seconds after which a test that does not end counts as a crash.

        tell: Hears each line of the journal when it is written.

    Returns:
        The report.

    Raises:
        UsageError: The suite refused its options, with its words.

        SuiteError: It died before the first test, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="llmcore-guarded-") as name:
        guard = _Guard(Path(name), options, limit, tell)
        while guard.run_child():
            pass
        report: dict[str, Any] = json.loads(guard.report.read_bytes())
        return report


class _Guard:
    """Starts one child after the other in a folder, and reads their journal."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        limit: float,
        tell: Callable[[Line], object],
    ) -> None:
        self.report = folder / "report.json"
        self._journal_file = folder / "journal"
        self._journal = Journal(self._journal_file)
        self._output = folder / "output"
        self._limit = limit
        self._tell = tell
        self._ended_badly = False
        settings = folder / "pytest.ini"
        settings.write_text(SETTINGS.format(limit=limit), encoding="utf-8")
        self._command = [
            *(sys.executable, "-m", "pytest", "-c", str(settings), "-q", "-s"),
            *("-p", "no:cacheprovider", "-p", "llmcore_conformance.plugin"),
            *("--pyargs", "llmcore_conformance.suite", *options),
            f"--llmcore-report={self.report}",
            f"--llmcore-journal={self._journal_file}",
        ]

    def run_child(self) -> bool:
        """Run one child; whether another one has to go on after it."""
        environment = dict(
            os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS=""
        )
        with self._output.open("wb") as output:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # what it starts can be ended with it
            )
        lines: list[Line] = []
        try:
            hangs = self._watch(child, lines)
        finally:
            _kill(child)
        lines += self._hear()
        if hangs:
            return self._settle(lines, f"no end within {self._limit:g} s", None)
        return self._settle(lines, _how(child.returncode), child.returncode)

    def _watch(self, child: subprocess.Popen[bytes], lines: list[Line]) -> bool:
        """Collect what a child writes until it ends, or hangs."""
        deadline = time.monotonic() + max(self._limit, STARTUP)
        while child.poll() is None:
            if news := self._hear():
                lines += news
                # At the limit it writes down where it is: that takes a moment.
                deadline = time.monotonic() + self._limit + 1.0
            elif time.monotonic() > deadline:
                return True
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL)
        return False

    def _hear(self) -> list[Line]:
        news = self._journal.news()
        for line in news:
            self._tell(line)
        return news

    def _settle(self, lines: list[Line], how: str, status: int | None) -> bool:
        """Write down what a child died of; whether there is more to do."""
        tests = [line for line in lines if line["step"] in ("start", "end")]
        ends = [line["status"] for line in lines if line["step"] == "finish"]
        if not ends:
            if not tests:
                raise self._never_began(how, status)
            self._crashed(tests[-1], how)  # in it, or right after it
            return True
        if status in ends or self._ended_badly:
            return False
        self._ended_badly = True
        after_all = {"test": AFTER_ALL, "clause": EXIT_CLAUSE, "claim": EXIT_CLAIM}
        self._crashed(after_all, how)
        return True  # which only writes the report

    def _crashed(self, test: Line, how: str) -> None:
        name = test["test"].rpartition("::")[2].partition("[")[0]
        seen = "\n".join([f"(crash): {how}", *self._last_words()])
        text = explain(test["clause"], name, test["claim"], seen, CAUSES)
        facts = {"test": test["test"], "clause": test["clause"], "how": how}
        self._journal.write("crash", **facts, outcome="crash", messages=[text])
        self._hear()

    def _never_began(self, how: str, status: int | None) -> SuiteError:
        output = self._output.read_text(encoding="utf-8", errors="replace")
        if status == USAGE_ERROR:
            errors = [x for x in output.splitlines() if x.startswith("ERROR: ")]
            return UsageError("\n".join(errors).replace("ERROR: ", "") or output)
        words = "\n".join(self._last_words())
        return SuiteError(
            f"the engine took the suite down before the first test: {how}\n{words}"
        )

    def _last_words(self) -> list[str]:
        """The end of what a child wrote, and where it was if Python could say it."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        lines = [f"    {line}" for line in text.splitlines() if line.strip()]
        dump = next((n for n, x in enumerate(lines) if x.startswith(DUMP)), len(lines))
        stacks = [n for n, line in enumerate(lines) if line.startswith(STACK)]
        stack = lines[stacks[-1] :] if stacks else []
        return lines[:dump][-LAST_WORDS:] + stack[:LAST_WORDS]


def _how(status: int) -> str:
    if status >= 0:
        return f"the process ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the process died of {name}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it has started; without harm if they are gone."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()
