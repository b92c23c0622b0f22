"""A folder of their own for all sockets of a test, and children that publish there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from llmcore.introspection import withdraw

Start = Callable[..., subprocess.Popen[str]]

TREE = """\
import os, sys, threading
import llmcore
from llmcore.testing import null_backend
engine = null_backend()
llama = llmcore.get_llama(engine)
model = llama.load_model()
context = model.create_context(context_size=64)
sequence = context.get_sequence()
"""
READY = "print('ready', flush=True)\n"
STAY = READY + "sys.stdin.read()\n"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that ``XDG_RUNTIME_DIR`` names; short, as sockets need it."""
    with TemporaryDirectory(prefix="ps") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)
        withdraw()


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(source)``: a Python program, which is ready and waits for its input."""
    started: list[subprocess.Popen[str]] = []

    def run(source: str, **variables: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        )
        started.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate()
