"""``llmcore ps``: what is printed, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

import llmcore
from llmcore.cli.ps import ps
from llmcore.introspection import publish
from llmcore.testing import null_backend

app = typer.Typer()
app.command()(ps)


@pytest.fixture
def context() -> Iterator[llmcore.Context]:
    """A context in this process, which is published."""
    publish()
    with llmcore.get_llama(null_backend()) as llama:
        yield llama.load_model().create_context(context_size=64)


def run(*args: str) -> str:
    """What a successful command prints."""
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_tree(context: llmcore.Context) -> None:
    """Each process is a tree: indented by dependence, with what keeps it busy."""
    with context._use(), context.lease():
        lines = run().splitlines()

    model, line = context.model, _line_of(context)
    head = next(i for i, text in enumerate(lines) if text.startswith(str(os.getpid())))
    labels = [text.split(" live")[0] for text in lines[head + 1 :]]
    assert "iB RAM  " in lines[head]
    assert labels[-3:] == [
        f"└── {model._parent._node.label}",
        f"    └── {model._node.label}",
        f"        └── {context._node.label}",
    ]
    assert "live, 1.0 MiB, 0 s (" in lines[-2]
    assert f"live, 1 inside, 1 held, 0 s ({__file__}:{line})" in lines[-1]


def _line_of(context: llmcore.Context) -> int:
    return context._node.site[1]


def test_json(context: llmcore.Context) -> None:
    """``--json`` writes all that is known, as one JSON text."""
    [found] = json.loads(run("--json", str(os.getpid())))

    assert found["resources"][-1]["label"] == context._node.label
    assert found["resources"][-1]["created_at"] == [__file__, _line_of(context)]


def test_nobody() -> None:
    """Where no process opted in, it says how to."""
    assert "no process shows its resources; start one with LLMCORE_PS=1" in run()
    assert run("--json") == "[]\n"


def test_unknown() -> None:
    """A process that is not there or did not opt in is an error."""
    done = CliRunner().invoke(app, ["77"])

    assert done.exit_code == 1
    assert done.stderr.startswith("error: process 77 is not there or does not show")


def test_silent(context: llmcore.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not answer is listed with the reason."""
    monkeypatch.setattr("llmcore.introspection.asking.MOST", 10)

    assert f"{os.getpid()}  it does not answer: its answer is longer" in run()


def test_watch_as_json() -> None:
    """A text that never ends is no JSON."""
    assert CliRunner().invoke(app, ["--watch", "--json"]).exit_code == 2


def test_watch(context: llmcore.Context) -> None:
    """``--watch`` shows what comes, until Ctrl-C."""
    shown, terminal = pty.openpty()
    code = "import typer; from llmcore.cli.ps import ps; typer.run(ps)"
    watching = subprocess.Popen(
        [sys.executable, "-c", code, "--watch", "--every", "0.05"],
        stdout=terminal,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"},
    )
    os.close(terminal)
    try:
        _read_until(shown, context._node.label)
        later = context.get_sequence()
        _read_until(shown, later._node.label)
        later.dispose()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    finally:
        watching.kill()
        watching.wait()
        os.close(shown)


def _read_until(terminal: int, text: str) -> None:
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 4096).decode()
