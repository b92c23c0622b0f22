"""llama.cpp keeps the contract of the seam, and core keeps it towards llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmcore
from llmcore.testing import checked
from llmcore_conformance import models


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_llama_cpp(tmp_path: Path, kind: str) -> None:
    """Answers, forks, cuts and saved states break no promise, whatever the cache."""
    path = getattr(models, f"tiny_{kind}")(tmp_path / "tiny.gguf")
    engine = checked("llama_cpp")
    with llmcore.get_llama(engine) as llama:
        context = llama.load_model(path).create_context(
            context_size=256, sequences=2, batch_size=32, micro_batch_size=32, threads=1
        )
        sequence = context.get_sequence()
        prompt = context.model.tokenize("Once upon a time there was a king. " * 4)
        assert sequence.generate(prompt, max_tokens=8).result.tokens
        with sequence.fork() as twin:
            assert twin.generate(prompt, max_tokens=4, temperature=0.9, seed=1).result
        sequence.truncate(20)
        sequence.evaluate(prompt[:5])
        sequence.save(tmp_path / "state")
        sequence.load(tmp_path / "state")
        context.memory_info()

    assert (engine.violations, engine.live) == ([], {})


def test_embeddings(tmp_path: Path) -> None:
    """Vectors of a small encoder break no promise."""
    engine = checked("llama_cpp")
    with llmcore.get_llama(engine) as llama:
        model = llama.load_model(models.tiny_embedding(tmp_path / "tiny.gguf"))
        context = model.create_context(context_size=128, embeddings=True)
        assert context.embed("a text").size

    assert (engine.violations, engine.live) == ([], {})
