"""
Runs the suite in a process of its own, against a backend or a mutant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Report = dict[str, Any]
LIMIT = 120.0
"""Seconds after which a run of the suite counts as hung."""


def run_suite(
    folder: Path, *options: str, backend: str = "null", mutant: str | None = None
) -> Report:
    """The report of the suite on a backend, or on a mutant of the null backend."""
    path = folder / "report.json"
    environment = dict(
        os.environ, PYTHONPATH=_python_path(), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    # Hundreds of runs of the same modules: none but the first compiles them.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "pycache")
    if mutant is not None:
        environment["LLMCORE_MUTANT"] = mutant
    command = [sys.executable, "-m", "pytest", "-q"]
    for plugin in ("no:cacheprovider", "llmcore_conformance.plugin", "mutants"):
        command += ["-p", plugin]
    command += ["--pyargs", "llmcore_conformance.suite"]
    command += [f"--llmcore-backend={backend}", "--llmcore-patience=4"]
    command += [f"--llmcore-report={path}", *options]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert path.exists(), f"no report:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    report["output"] = done.stdout
    return report


def _python_path() -> str:
    old = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(HERE), *([old] if old else [])])
