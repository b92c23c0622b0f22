"""
What would crash, hang or garble other frameworks ends here in a clear error.

Each scenario is a small function in `fault_scenarios`, run with the real llama.cpp in a
process of its own: it must end with the exit code it says, say nothing on stderr that
it does not announce, and tell the outcome it expects.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="needs the llama-cpp-python engine")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fault_scenarios import SCENARIOS, Scenario  # noqa: E402

SECONDS = 120
"""A scenario that takes longer hangs; most take one or two seconds."""


@pytest.mark.parametrize(
    "scenario", [pytest.param(s, id=name) for name, s in SCENARIOS.items()]
)
def test_scenario(
    scenario: Scenario,
    tiny_model: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The process survives and tells what went wrong."""
    model = request.getfixturevalue("smollm2") if scenario.real_model else tiny_model
    record_property("scenario", scenario.name)

    child = subprocess.run(
        [sys.executable, "-m", "fault_scenarios", scenario.name, str(model)],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONFAULTHANDLER": "1"},
    )

    told = child.stdout.strip().splitlines() or ["nothing"]
    record_property("outcome", f"exit {child.returncode}: {told[-1]}")
    assert child.returncode in scenario.exit_codes, child.stdout + child.stderr
    assert re.fullmatch(scenario.stderr, child.stderr)
    assert re.search(scenario.outcome, child.stdout, re.DOTALL)
