from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_same_command() -> None:
    """CI runs the command that the README gives to people."""
    script = (ROOT / ".ci/run").read_text("utf-8")
    command = re.search(r"^test_command='(.+)'$", script, re.MULTILINE)

    assert command is not None
    assert command[1] in (ROOT / "README.md").read_text("utf-8")


PROGRAMS = {
    "python3": '[ "$1" != -c ]',  # it finds no library
    "c++": "exit 0",
    "sudo": 'exec "$@"',
    "apt-get": "exit 100",
}


def test_no_vulkan(tmp_path: Path) -> None:
    """Where Mesa's driver cannot be installed, CI says so and goes on."""
    (bin := tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        (bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    done = subprocess.run(
        ["bash", shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": f"{bin}:{os.defpath}"},
    )

    assert "not installed: the environments for Vulkan will be skipped" in done.stdout
    assert "[ci] python3 -m venv" in done.stdout


def summary(folder: Path, *runs: str, success: bool = True) -> tuple[int, str]:
    """The exit status and the words for one environment, by what its commands said."""
    environment = {
        "test": [{"output": output} for output in runs],
        "result": {"success": success, "skipped": False},
    }
    file = folder / "result.json"
    file.write_text(json.dumps({"testenvs": {"vulkan": environment}}))
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/summary.py", file, str(int(not success))],
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout


def test_skipped(tmp_path: Path) -> None:
    """An environment that found nothing to test is not reported as passed."""
    _, words = summary(tmp_path, "skipped: no Vulkan device\n")

    assert re.search(r"vulkan +SKIPPED  no Vulkan device\n", words)


def test_failed(tmp_path: Path) -> None:
    """A check that failed without a test counts as one failure."""
    status, words = summary(tmp_path, "skipped: this\n", "and broke\n", success=False)

    assert status == 1
    assert "FAILED" in words
    assert words.endswith("0 passed, 1 failed, 0 skipped\n")
