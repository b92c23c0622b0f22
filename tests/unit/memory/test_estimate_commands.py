"""``llmcore estimate`` and ``llmcore inspect``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmcore.cli import app
from llmcore.memory.estimate import estimate
from llmcore_conformance.models import tiny_llama, tiny_recurrent


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "model.gguf")


def llmcore(*args: object) -> str:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert 0 == done.exit_code, done.output
    return done.output


def test_estimate(path):
    """``estimate`` says what is needed, part by part, and in total."""
    lines = llmcore("estimate", path, "--ctx", 512).splitlines()

    assert "2 layers: 1 x 512 tokens" in lines[3]
    assert lines[-1].split()[0] == "total"


def test_estimate_as_json(path):
    """``estimate --json`` gives the same bytes that the function gives."""
    options = ("--ctx", 4096, "--kv", "q8_0", "--sequences", 2, "--batch", 64)
    found = json.loads(llmcore("estimate", path, *options, "--json"))

    expected = estimate(
        path,
        context_size=4096,
        kv_type_k="q8_0",
        kv_type_v="q8_0",
        sequences=2,
        batch_size=64,
        micro_batch_size=64,
    )
    assert expected.as_dict() == found


def test_estimate_options(path):
    """Values can have a type of their own, and layers a place on a GPU."""
    options = ("--ctx", 256, "--kv", "f16", "--kv-v", "q4_0", "--gpu-layers", 1)
    output = llmcore("estimate", path, *options)

    assert "32 keys in f16 + 32 values in q4_0" in output
    assert any(line.startswith("gpu") for line in output.splitlines())


def test_inspect(path):
    """``inspect`` tells what a model is, and no list of tokens."""
    found = json.loads(llmcore("inspect", path, "--json"))

    assert ("llama", 2, "full", True) == (
        found["architecture"],
        found["layers"],
        found["cache"],
        found["chat_template"],
    )
    assert {"F32": {"count": 21, "bytes": found["bytes"]}} == found["tensors"]
    assert not any(isinstance(value, list) for value in found.values())


def test_inspect_for_people(tmp_path):
    """``inspect`` prints one fact a line."""
    lines = llmcore("inspect", tiny_recurrent(tmp_path / "m.gguf")).splitlines()
    facts = dict(line.split("  ", 1) for line in lines)

    assert "recurrent" == facts["cache"].strip()
    assert "yes" == facts["chat template"].strip()
