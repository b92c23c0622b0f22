"""
The numbers of the reference backend against those of llama.cpp, from 32-bit weights.

Both compute in 32-bit floats but add in another order, which in two layers makes some
1e-5 of logits around 30. Where GELU is used llama.cpp looks it up in a table of 16-bit
floats, which makes some 1e-2; with that table in the reference too it was 2e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.spi import Batch
from llmcore.values import ContextParams

if TYPE_CHECKING:
    from conftest import Load, MakeRun

TEXT = [262 + n * n % 90 for n in range(200)]
SUMS, TABLE = 5e-4, 3e-2
"""Largest difference of a logit: by the order of sums, and by the table of GELU."""


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("llama", SUMS),
        ("linear", SUMS),
        ("yarn", SUMS),
        ("factors", SUMS),
        ("biased", SUMS),
        ("tied", SUMS),
        ("gemma3", TABLE),
        ("mamba", SUMS),
    ],
)
def test_logits(
    paths: dict[str, Path],
    reference: Load,
    llama_cpp: Load,
    run: MakeRun,
    name: str,
    tolerance: float,
) -> None:
    """Each architecture and variant gives the logits of llama.cpp, at each position."""
    ours = run(reference(paths[name])).feed(TEXT)
    theirs = run(llama_cpp(paths[name])).feed(TEXT)

    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba"])
def test_continued(
    paths: dict[str, Path], reference: Load, llama_cpp: Load, run: MakeRun, name: str
) -> None:
    """What a cache holds gives the same as evaluating all at once."""
    context = run(reference(paths[name]))
    parts = [context.feed(TEXT[at : at + 40], at=at) for at in range(0, 200, 40)]
    theirs = run(llama_cpp(paths[name])).feed(TEXT)

    np.testing.assert_allclose(np.concatenate(parts), theirs, rtol=0, atol=TABLE)


def test_half_precision_cache(
    paths: dict[str, Path], reference: Load, llama_cpp: Load, run: MakeRun
) -> None:
    """Keys and values of 16 bits are rounded as llama.cpp rounds them."""
    half = {"kv_type_k": "f16", "kv_type_v": "f16"}
    ours = run(reference(paths["llama"]), **half).feed(TEXT)
    theirs = run(llama_cpp(paths["llama"]), **half).feed(TEXT)
    exact = run(reference(paths["llama"])).feed(TEXT)

    # They differ less than rounding makes a difference.
    assert np.abs(ours - theirs).mean() < np.abs(ours - exact).mean()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TABLE)


def test_embedding(paths: dict[str, Path], reference: Load, llama_cpp: Load) -> None:
    """The vectors of two texts in one batch are those of llama.cpp."""
    params = ContextParams(
        context_size=64, sequences=2, embeddings=True, flash_attention=False
    )
    batch = Batch(
        [10 + n for n in range(30)],
        [*range(20), *range(10)],
        [0] * 20 + [1] * 10,
        [True] * 30,
    )
    vectors = []
    for load in (reference, llama_cpp):
        context = load(paths["bert"]).create_context(params)
        context.decode(batch)
        vectors.append([context.embedding(sequence) for sequence in (0, 1)])
        context.close()

    np.testing.assert_allclose(*vectors, rtol=0, atol=TABLE)


def test_decoder_embedding(
    paths: dict[str, Path], reference: Load, llama_cpp: Load
) -> None:
    """A decoder's vector of a text is that of its last token, also in llama.cpp."""
    params = ContextParams(context_size=64, embeddings=True, flash_attention=False)
    vectors = []
    for load in (reference, llama_cpp):
        context = load(paths["llama"]).create_context(params)
        context.decode(Batch(TEXT[:40], range(40), [0] * 40, [True] * 40))
        vectors.append(context.embedding(0))
        context.close()

    np.testing.assert_allclose(*vectors, rtol=0, atol=TABLE)
