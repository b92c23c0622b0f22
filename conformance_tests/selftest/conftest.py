"""
Runs the suite against mutants, each in a process of its own, as many as there are cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
pytest_plugins = ["pytester"]

Report = dict[str, Any]
LIMIT = 120.0
"""Seconds after which a run of the suite counts as hung."""


def run_suite(folder: Path, *options: str, mutant: str | None = None) -> Report:
    """The report of the suite on the null backend, or on a mutant of it."""
    path = folder / "report.json"
    environment = dict(
        os.environ, PYTHONPATH=_python_path(), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    if mutant is not None:
        environment["LLMCORE_MUTANT"] = mutant
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "llmcore_conformance.plugin", "-p", "mutants", "--pyargs", "llmcore_conformance.suite"]
    command += ["--llmcore-backend=null", "--llmcore-patience=4"]
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


@pytest.fixture(scope="session")
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Report]]:
    """``reports(name)`` is the report of a mutant; all that are needed run at once."""
    names = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "name" in item.callspec.params
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures: dict[str, Future[Report]] = {
            name: pool.submit(run_suite, tmp_path_factory.mktemp("mutant"), mutant=name)
            for name in sorted(names)
        }
        yield lambda name: futures[name].result()
        pool.shutdown(cancel_futures=True)
