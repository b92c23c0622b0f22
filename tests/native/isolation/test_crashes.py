"""Each way in which a real engine can die is an error here, and the next one works."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmcore
from llmcore.errors import BackendCrashedError
from llmcore.isolation import isolated
from llmcore.plugins import registry
from llmcore.values import evolve

from ...unit.fuzz_model_file import mutations, tiny_image
from .crashing_engines import BAD
from .damaged_files import Trials, damaged

pytest.importorskip("llama_cpp", reason="needs the llama-cpp-python engine")

WAYS = {
    "abort": r"(?s)was killed by SIGABRT.*engine\.cpp:1: GGML_ASSERT\(false\) failed",
    "segfault": "was killed by SIGSEGV",
    "kill": "was killed by SIGKILL",
    "hang": "gave no answer to 'decode' for 2 s and was killed",
    "malformed": "sent a malformed reply to .* and was killed",
    "oversized": r"\(a frame of 1099511627776 bytes .* and was killed",
}
FILES = 50
"""In all; `benchmarks.crashes` tries more."""


def answer(file: Path) -> list[int]:
    """Greedy tokens of a new engine in a new child."""
    with (
        llmcore.get_llama("llama_cpp", isolation="process") as llama,
        llama.load_model(file) as model,
        model.create_context(context_size=64, threads=1) as context,
        context.get_sequence() as sequence,
    ):
        return list(
            sequence.generate(model.tokenize("a b"), max_tokens=8).result.tokens
        )


@pytest.mark.parametrize(("way", "what"), WAYS.items())
def test_death(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, way: str, what: str
) -> None:
    """The caller learns how it died, without chatter; a new engine answers as ever."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    info = evolve(registry().get("llama_cpp").info, factory=f"crashing_engines:{way}")
    expected = answer(tiny_model)

    with llmcore.get_llama(isolated(info, watchdog=2)) as llama:
        context = llama.load_model(tiny_model).create_context(context_size=64)
        sequence = context.get_sequence()
        with pytest.raises(BackendCrashedError, match=what) as caught:
            sequence.evaluate([BAD])

    assert "DEBUG" not in str(caught.value)
    assert answer(tiny_model) == expected


@pytest.fixture
def trials() -> Iterator[Trials]:
    """Of llama.cpp."""
    trials = Trials(registry().get("llama_cpp").info)
    yield trials
    trials.close()


def test_damaged_files(trials: Trials, tmp_path: Path, tiny_model: Path) -> None:
    """A damaged file that core let through costs at most the child that reads it."""
    file, expected = tmp_path / "damaged.gguf", answer(tiny_model)
    fates = Counter[str]()
    for raw in mutations(tiny_image(), FILES, seed=1):
        file.write_bytes(raw)
        fates[trials.fate(file)] += 1

    print(dict(fates), dict(trials.endings))
    assert fates.total() == FILES
    assert fates["evaluated"] > 0
    assert fates["refused"] > 0
    assert answer(tiny_model) == expected


def test_undecodable_name(trials: Trials, tmp_path: Path) -> None:
    """A file that is refused costs no child, even if its name is no text."""
    file = tmp_path / os.fsdecode(b"\xff.gguf")
    try:
        file.write_bytes(b"GGUF and nothing else")
    except OSError:
        pytest.skip("needs a file system for which names are bytes")

    assert trials.fate(file) == "refused"


def test_damage_is_undone(tmp_path: Path) -> None:
    """A file that is damaged for a moment is whole again afterwards."""
    file, chance = tmp_path / "file", random.Random(1)
    file.write_bytes(whole := chance.randbytes(4096))
    for _ in range(20):
        with damaged(file, 1024, chance):
            assert file.read_bytes() != whole
        assert file.read_bytes() == whole
