"""``llmcore compare`` on two real engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import llmcore
from llmcore.cli import app
from llmcore.comparison import Verdict, compare
from llmcore_conformance.models import tiny_llama


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny model, which both engines read."""
    return tiny_llama(tmp_path / "tiny.gguf")


def test_two_engines_compute_the_same(file: Path) -> None:
    """llama.cpp and the reference give the same tokens of a model in full precision."""
    args = ["compare", "llama_cpp", "reference", str(file), "--json"]
    done = CliRunner().invoke(app, [*args, "--prompt", "the capital of"])
    assert 0 == done.exit_code, done.output
    told = json.loads(done.output)
    assert ("same", True, None) == (
        *(told["verdict"], told["same_tokens"]),
        told["first"],
    )


def test_other_weights_are_a_defect(file: Path, tmp_path: Path) -> None:
    """Two files of one vocabulary are told apart, and the exit code says so."""
    other = tiny_llama(tmp_path / "other.gguf", seed=7)
    with (
        llmcore.get_llama("llama_cpp") as a,
        llmcore.get_llama("reference") as b,
        a.load_model(file) as left,
        b.load_model(other) as right,
    ):
        (found,) = compare(left, right, ["the capital of"])
    assert Verdict.DEFECT is found.verdict
    assert found.first is not None
