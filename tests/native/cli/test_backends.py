"""``llmcore backends`` and ``llmcore doctor`` over engines that misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-W", "error", "-c", "from llmcore.cli import main; main()")
PLUGIN = """
from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo

@hookimpl
def llmcore_backend_info():
    return [
        BackendInfo(name="crashing", factory="crashing_engine:Engine"),
        BackendInfo(name="absent", factory="x:y", requires=("no-such-engine",)),
    ]
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that sees one plugin, whose engine crashes, and what is built in."""
    about = tmp_path / "llmcore_crashing-1.0.dist-info"
    about.mkdir()
    metadata = "Metadata-Version: 2.1\nName: llmcore-crashing\nVersion: 1.0\n"
    (about / "METADATA").write_text(metadata)
    points = "[llmcore.backends]\ncrashing = crashing_plugin\n"
    (about / "entry_points.txt").write_text(points)
    (tmp_path / "crashing_plugin.py").write_text(PLUGIN)
    (tmp_path / "crashing_engine.py").write_text("import os; os.abort()")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "LLMCORE_PLUGINS": "crashing,null",
        "XDG_CACHE_HOME": str(tmp_path),
    }


def llmcore(
    environment: dict[str, str], *args: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=60, env=environment
    )


def test_explained(environment: dict[str, str]) -> None:
    """``backends --explain`` has a line for each engine: chosen or not, and why."""
    done = llmcore(environment, "backends", "--explain")

    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    [crashing] = [line for line in lines if line.startswith("crashing: ")]
    assert crashing.startswith("crashing: not chosen: it crashed with SIGABRT")
    assert crashing.endswith("s: failed)")
    assert "null: not chosen: only used if asked for by name" in lines
    [absent] = [line for line in lines if line.startswith("absent: ")]
    assert "needs no-such-engine (not installed)" in absent


@pytest.mark.parametrize("gpu", ["cuda", "none"])
def test_explained_for_a_gpu(environment: dict[str, str], gpu: str) -> None:
    """``backends --gpu`` explains for that GPU, and for none."""
    done = llmcore(environment, "backends", "--gpu", gpu)

    assert (0, "") == (done.returncode, done.stderr)
    reason = "does not declare 'gpu'" if gpu == "cuda" else "it crashed"
    assert f"crashing: not chosen: {reason}" in done.stdout


def test_unknown_gpu(environment: dict[str, str]) -> None:
    """A GPU that there is not is one line on stderr."""
    done = llmcore(environment, "backends", "--gpu", "cud")

    assert 2 == done.returncode
    assert "error: gpu must be one of 'auto', 'cuda'" in done.stderr


def test_run_is_refused(environment: dict[str, str]) -> None:
    """A command with an engine that crashes is one line on stderr."""
    done = llmcore(environment, "run", "model", "hello", "--backend", "crashing")

    assert 1 == done.returncode
    assert done.stderr.startswith(
        "error: backend 'crashing' cannot be used: it crashed"
    )
    assert 1 == done.stderr.count("\n")


def test_doctor(environment: dict[str, str]) -> None:
    """``doctor`` survives an engine that crashes, and its exit code tells of it."""
    done = llmcore(environment, "doctor")

    assert 1 == done.returncode
    assert "crashing: cannot be used: it crashed with SIGABRT" in done.stdout
    assert "null: works" in done.stdout


def test_doctor_forgives(environment: dict[str, str]) -> None:
    """An engine that is not installed is no illness."""
    done = llmcore(environment | {"LLMCORE_PLUGINS": "null"}, "doctor")
    assert (0, "") == (done.returncode, done.stderr)


def test_doctor_without_trials(environment: dict[str, str]) -> None:
    """Where trials are switched off the doctor says that it knows nothing."""
    done = llmcore(environment | {"LLMCORE_TRIAL_SECONDS": "0"}, "doctor")

    assert 0 == done.returncode
    assert "crashing: not tried: LLMCORE_TRIAL_SECONDS=0" in done.stdout
