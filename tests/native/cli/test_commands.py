"""The command line over the null engine, in a process as a person starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmcore.cli.options import open_model

COMMAND = (sys.executable, "-W", "error", "-c", "from llmcore.cli import main; main()")


def llmcore(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60)


def test_help_is_light():
    """``--help`` loads no NumPy and no engine."""
    code = (
        "import sys\nfrom llmcore.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'numpy', 'llama_cpp', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_run_answers(isolation: str):
    """``run`` writes an answer and nothing else, wherever the engine is."""
    done = llmcore(
        *("run", "model", "hello", "--backend", "null", "--max-tokens", "9"),
        *("--isolation", isolation),
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.strip()
    assert 1 == done.stdout.count("\n")


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_isolation(isolation: str):
    """A model is opened in a process of its own if that is asked for, else here."""
    with (
        open_model(Path("model"), backend="null", isolation=isolation) as model,
        model._parent._use() as backend,
    ):
        assert (isolation == "process") == (getattr(backend, "pid", None) is not None)


def test_an_engine_speaks_one_line():
    """A file that a real engine cannot find is one line on stderr and an exit code."""
    if find_spec("llama_cpp") is None:
        pytest.skip("needs the llama-cpp extra")
    done = llmcore("run", "no/such.gguf", "hi", "--backend", "llama_cpp")
    assert 1 == done.returncode
    assert "no/such.gguf" in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 == done.stderr.count("\n")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_stops_the_answer_and_not_the_program():
    """Ctrl-C ends an endless answer; the chat goes on and remembers what was said."""
    with subprocess.Popen(
        [*COMMAND, "chat", "model", "--backend", "null", "--context-size", "1000000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write(b"hello\n")
        chat.stdin.flush()
        seen = b""
        while len(seen.partition(b"> ")[2]) < 20:  # some of the answer is there
            seen += chat.stdout.read1()
        chat.send_signal(signal.SIGINT)
        rest, errors = chat.communicate(b"/history\n", timeout=60)
    assert (0, b"") == (chat.returncode, errors)
    assert b"user: hello\nassistant: " in rest
