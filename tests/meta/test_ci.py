from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_same_command() -> None:
    """CI runs the command that the README gives to people."""
    script = (ROOT / ".ci/run").read_text("utf-8")
    command = re.search(r"^test_command='(.+)'$", script, re.MULTILINE)

    assert command is not None
    assert command[1] in (ROOT / "README.md").read_text("utf-8")
