from __future__ import annotations

import os
import subprocess
import sys

HEAVY = {"ctransformers", "gguf", "jinja2", "llama_cpp", "numpy", "pluggy", "typer"}


def imported_by(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return set(done.stdout.split())


def test_light() -> None:
    """Importing llmcore imports no engine, no NumPy, and nothing that is slow."""
    assert imported_by("import llmcore") & HEAVY == set()


def test_text_without_numpy() -> None:
    """Assembling text needs no NumPy."""
    assert "numpy" not in imported_by("import llmcore.engine.text")
