"""Contexts that turn text into vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import CapabilityError, DecodeError
from llmcore.spi import Batch

if TYPE_CHECKING:
    from conftest import MakeRun, Run


def embed(run: Run, *texts: list[int]) -> list[np.ndarray]:
    """The vectors of texts that are evaluated in one batch."""
    tokens, positions, sequences = [], [], []
    for number, text in enumerate(texts):
        tokens += text
        positions += range(len(text))
        sequences += [number] * len(text)
    run.context.decode(Batch(tokens, positions, sequences, [True] * len(tokens)))
    return [run.context.embedding(number) for number in range(len(texts))]


@pytest.mark.parametrize("name", ["embedding", "llama", "sliding", "recurrent"])
def test_vectors(models: dict[str, LlamaCppModel], run: MakeRun, name: str) -> None:
    """Each text has a vector of its own, the same alone and among others."""
    model = models[name]
    first, second = model.tokenize(b"hello there"), model.tokenize(b"france")
    params = {"embeddings": True, "batch_size": 64}
    together = embed(run(model, sequences=2, **params), first, second)

    assert (model.info.embedding_size,) == together[0].shape
    assert not np.allclose(together[0], together[1])
    for vector, text in zip(together, (first, second), strict=True):
        alone = embed(run(model, **params), text)[0]
        np.testing.assert_allclose(vector, alone, rtol=0.01, atol=0.01)


def test_whole_batch_at_once(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A text as long as the batch is computed at once, whatever the micro-batch."""
    context = run(
        models["embedding"], embeddings=True, batch_size=256, micro_batch_size=16
    )

    assert np.isfinite(embed(context, [10] * 256)[0]).all()
    assert context.context.params.micro_batch_size == 256


def test_owned(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A vector stays as it is when the context goes on."""
    context = run(models["embedding"], embeddings=True)
    vector = embed(context, [10, 11])[0]
    before = vector.copy()
    embed(context, [12, 13])

    np.testing.assert_array_equal(before, vector)


def test_other_sequence(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A sequence that was not in the batch has no vector."""
    context = run(models["embedding"], embeddings=True, sequences=2)
    embed(context, [10, 11])

    with pytest.raises(DecodeError, match="sequence 1 has no embedding"):
        context.context.embedding(1)


def test_no_cache(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A model without a cache has empty bounds, and clearing it does no harm."""
    context = run(models["embedding"], embeddings=True).context
    context.clear()
    context.clear(0)

    assert context.bounds(0) == (-1, -1)
    assert not context.remove(0, 0)


def test_not_for_text(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A model that only makes embeddings does not generate."""
    with pytest.raises(CapabilityError, match="embeddings=True"):
        run(models["embedding"])


def test_no_more_positions(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A table of positions is never read beyond its end."""
    with pytest.raises(ValueError, match="context_size must be at most 512"):
        run(models["embedding"], embeddings=True, context_size=513)


def test_a_smaller_table(
    load: Callable[[Path], LlamaCppModel], run: MakeRun, tmp_path: Path
) -> None:
    """Where the engine rounds up beyond the table, the table's size is given."""
    from llmcore_conformance.models import tiny_embedding

    model = load(tiny_embedding(tmp_path / "short.gguf", context=100))
    context = run(model, embeddings=True, context_size=100)

    assert context.context.params.context_size == 100
