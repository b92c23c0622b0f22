"""
Runs the suite in a process of its own, against a backend or a mutant.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Report = dict[str, Any]
LIMIT = 120.0
"""Seconds after which a run of the suite counts as hung."""

SUITE = (
    *("-q", "-p", "no:cacheprovider"),
    *("-p", "llmcore_conformance.plugin", "-p", "mutants"),
    *("--pyargs", "llmcore_conformance.suite", "--llmcore-patience=4"),
)


def run_suite(
    folder: Path, *options: str, backend: str = "null", mutant: str | None = None
) -> Report:
    """The report of the suite on a backend, or on a mutant of the null backend."""
    _let_children_import_us()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preload"])
    arguments = [*SUITE, f"--llmcore-backend={backend}", *options]
    process = context.Process(target=_run, args=(folder, arguments, mutant))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    path = folder / "report.json"
    assert path.exists(), f"no report ({process.exitcode}):\n{output[-6000:]}"
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    report["output"] = output
    return report


def _let_children_import_us() -> None:
    """The process that forks, and the programs that the tests start."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(HERE) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), *path]))


def _run(folder: Path, arguments: list[str], mutant: str | None) -> None:
    """The whole life of a process in which the suite runs."""
    assert "preload" in sys.modules, "it was not forked from where all is imported"
    os.chdir(folder)
    if mutant is not None:
        os.environ["LLMCORE_MUTANT"] = mutant
    arguments = [*arguments, f"--llmcore-report={folder / 'report.json'}"]
    run_pytest(arguments, folder / "output")


def run_pytest(arguments: list[str], output: Path | str) -> None:
    """Run pytest in this process, for good: it writes to that file from now on."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    pytest.main(arguments)
