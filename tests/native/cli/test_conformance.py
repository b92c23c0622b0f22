"""``llmcore conformance``: what it prints, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmcore.cli import app

needs_suite = pytest.mark.skipif(
    find_spec("llmcore_conformance") is None,
    reason="the suite is a distribution of its own",
)


def conformance(*args: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["conformance", *args])


def test_without_the_suite_it_says_what_to_install(monkeypatch):
    """The message is a command that helps, and the exit code says: not tested."""
    monkeypatch.setitem(sys.modules, "llmcore_conformance", None)
    result = conformance("null")
    assert 2 == result.exit_code
    assert "pip install llmcore-conformance" in result.stderr


@needs_suite
def test_a_backend_that_conforms_is_told_so(tmp_path: Path):
    """Exit code 0, a line for each profile, and the report in a file."""
    path = tmp_path / "report.json"
    result = conformance(
        *("null", "--clause", "dispose.reopen", "--clause", "load.fail-clean"),
        *("--report", str(path)),
    )
    assert 0 == result.exit_code, result.output
    assert "core: partial, 2 of " in result.stdout
    report = json.loads(path.read_text())
    assert "pass" == report["clauses"]["dispose.reopen"]["outcome"]
    assert "not-run" == report["clauses"]["dispose.cascade"]["outcome"]


@needs_suite
def test_an_unknown_backend_is_a_usage_error():
    """Exit code 2, and the name is in the message."""
    result = conformance("nobody")
    assert 2 == result.exit_code
    assert "nobody" in result.stderr


@needs_suite
def test_an_unknown_profile_is_a_usage_error():
    """The suite's own words reach the user."""
    result = conformance("null", "--profile", "all")
    assert 2 == result.exit_code
    assert "multi-sequence" in result.stderr


def test_without_a_name_it_shows_how_to_use_it():
    """The missing argument is named."""
    done = subprocess.run(
        [sys.executable, "-c", "from llmcore.cli import main; main()", "conformance"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 2 == done.returncode
    assert "NAME" in done.stderr
