"""Plugins hear what listeners hear, and cannot disturb it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLUGIN = """
from llmcore.hookspecs import hookimpl

@hookimpl
def llmcore_backend_info():
    return []

@hookimpl
def llmcore_telemetry_event(event):
"""

PROGRAM = """
import logging
logging.disable()
import llmcore
from llmcore.plugins import registry
from llmcore.telemetry import Subject, bus, span

with span("evict", Subject(kind="test", label="too early")):
    pass
registry().backends
with span("step", Subject(kind="test", label="not for plugins")):
    pass
with span("evict", Subject(kind="test", label="in time")):
    pass
print(*[(p.plugin, p.stage) for p in registry().problems])
"""


def heard(folder: Path, *bodies: str) -> list[str]:
    """What a program prints in which plugins with these bodies are installed."""
    for number, body in enumerate(bodies):
        about = folder / f"llmcore_ear{number}-1.0.dist-info"
        about.mkdir()
        name = f"Name: llmcore-ear{number}\nVersion: 1.0\n"
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\n{name}")
        points = f"[llmcore.backends]\near{number} = llmcore_ear{number}\n"
        (about / "entry_points.txt").write_text(points)
        (folder / f"llmcore_ear{number}.py").write_text(f"{PLUGIN}    {body}\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
            "LLMCORE_PLUGINS": ",".join(f"ear{n}" for n in range(len(bodies))),
            "LLMCORE_TRIAL_SECONDS": "0",
        },
    )
    return done.stdout.splitlines()


def test_heard(tmp_path: Path) -> None:
    """A plugin hears events, from when it is loaded, and no steps."""
    lines = heard(tmp_path, "print(event.name, event.phase, event.subject.label)")

    assert lines == ["evict start in time", "evict complete in time", ""]


def test_a_plugin_that_raises(tmp_path: Path) -> None:
    """It is recorded as a problem of its own; the next plugin hears everything."""
    lines = heard(tmp_path, "raise SystemExit", "print(event.phase)")

    assert lines == ["start", "complete", "('ear0', 'event')"]
