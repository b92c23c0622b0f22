"""
Runs the suite against mutants, each in a process of its own, a few at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutants import load_mutants
from runner import Report, run_suite

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Report]]:
    """``reports(name)`` is the report of a mutant; all that are needed run at once."""
    wanted = [
        getattr(item, "callspec", None)
        for item in request.session.items
        if "reports" in getattr(item, "fixturenames", ())
    ]
    # A test that is not about one mutant is about all of them.
    names = {str(spec.params["name"]) if spec else None for spec in wanted}
    if None in names:
        names = set(load_mutants())
    # One more than there are cores: a run waits for a third of its time.
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        futures: dict[str, Future[Report]] = {}

        def start(name: str) -> Future[Report]:
            if name not in futures:
                folder = tmp_path_factory.mktemp("mutant")
                futures[name] = pool.submit(run_suite, folder, mutant=name)
            return futures[name]

        for name in sorted(filter(None, names)):
            start(name)
        yield lambda name: start(name).result()
        pool.shutdown(cancel_futures=True)
