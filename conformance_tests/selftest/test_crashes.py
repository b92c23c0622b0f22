"""
A backend that takes the process down: the crash is a result, and the rest is run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmcore.cli import app
from llmcore_conformance.clauses import load_clauses
from llmcore_conformance.guarded import SuiteError, UsageError, run_guarded
from llmcore_conformance.summary import conforms

HERE = str(Path(__file__).parent)
LIMIT = 5.0
"""Seconds that are waited for a test that hangs."""

Guarded = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def guarded() -> Guarded:
    """``guarded(backend, *clauses)`` is the report of a run that survives crashes."""

    def run(backend: str, *clauses: str, **options: Any) -> dict[str, Any]:
        chosen = [f"--llmcore-clause={clause}" for clause in clauses]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", HERE)
            return run_guarded(
                [f"--llmcore-backend={backend}", *chosen], limit=LIMIT, **options
            )

    return run


@pytest.fixture(scope="module")
def crashed(guarded: Guarded) -> dict[str, Any]:
    """The report of a backend that dies in four operations, each in its own way."""
    return guarded(
        "crashing:IN_TESTS",
        *("cap.partial-remove", "cap.shift", "state.owned", "embed.repeatable"),
        *("load.independent-models", "dispose.idempotent"),
    )


@pytest.mark.parametrize(
    ("clause", "how"),
    [
        ("state.owned", "died of SIGSEGV"),
        ("cap.shift", "died of SIGABRT"),
        ("embed.repeatable", "ended with exit code 0"),
        ("cap.partial-remove", "no end within 5 s"),
    ],
)
def test_a_death_is_a_crash_of_its_clause(
    crashed: dict[str, Any], clause: str, how: str
) -> None:
    """The message says how the process died, the sentence, and a likely cause."""
    found = crashed["clauses"][clause]
    assert found["outcome"] == "crash"
    (message,) = found["failures"]
    assert how in message
    assert str(load_clauses()[clause]) in message
    assert "\nlikely cause: " in message


def test_the_tests_around_a_crash_are_run(crashed: dict[str, Any]) -> None:
    """What comes before and after it passes, in the same report."""
    for clause in ("load.independent-models", "dispose.idempotent"):
        assert crashed["clauses"][clause]["outcome"] == "pass"


def test_a_crash_breaks_the_profile(crashed: dict[str, Any]) -> None:
    """A backend that crashes does not conform."""
    results = {profile["name"]: profile["result"] for profile in crashed["profiles"]}
    assert results["state-io"] == "failure"
    assert not conforms(crashed)


def test_a_crash_says_where_it_was(crashed: dict[str, Any]) -> None:
    """The message ends with the stack of the thread that crashed."""
    (message,) = crashed["clauses"]["state.owned"]["failures"]
    assert "in segfault" in message


def test_a_crash_has_its_last_words(crashed: dict[str, Any]) -> None:
    """What the engine wrote to stderr before it aborted is kept."""
    (message,) = crashed["clauses"]["cap.shift"]["failures"]
    assert "GGML_ASSERT" in message


def test_a_crash_at_the_end_breaks_the_clause_of_the_end(guarded: Guarded) -> None:
    """All tests have passed, and yet the process does not end well."""
    report = guarded("crashing:AT_EXIT", "exit.clean", "dispose.idempotent")
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "pass"
    assert report["clauses"]["exit.clean"]["outcome"] == "crash"
    assert "SIGSEGV" in report["clauses"]["exit.clean"]["failures"][-1]


def test_a_crash_before_the_first_test_is_an_error(guarded: Guarded) -> None:
    """Nothing can be said of an engine that dies when it is asked what it can do."""
    with pytest.raises(SuiteError, match="SIGSEGV"):
        guarded("crashing:AT_LOAD")


def test_refused_options_are_told_apart(guarded: Guarded) -> None:
    """An unknown backend is the caller's mistake, in the suite's words."""
    with pytest.raises(UsageError, match="nobody"):
        guarded("nobody")


def test_each_step_is_told(guarded: Guarded) -> None:
    """Whoever listens hears of each test when it begins and ends."""
    heard: list[str] = []
    guarded("null", "dispose.reopen", tell=lambda line: heard.append(line["step"]))
    assert heard == ["tests", "start", "end", "finish"]


def test_the_command_tells_what_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1; stderr tells at once, and the summary tells all about it."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    arguments = ["crashing:IN_TESTS", "--clause", "cap.shift"]
    result = CliRunner().invoke(app, ["conformance", *arguments])
    assert result.exit_code == 1
    assert "test_positions_can_be_moved: the process died of SIGABRT" in result.stderr
    assert str(load_clauses()["cap.shift"]) in result.stdout
