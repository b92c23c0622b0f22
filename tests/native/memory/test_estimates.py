"""Estimates against what the engine reports, over a grid of contexts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmcore
from llmcore.backends.llama_cpp.rules import WITHOUT_CACHE as ENGINES
from llmcore.memory.estimate import estimate
from llmcore.memory.shape import WITHOUT_CACHE
from llmcore.params import ContextParams
from llmcore_conformance import models

MOST = 0.05
"""Of the total, by which an estimate may be wrong."""

NO_KEYS = ("f16",)
"""A model without a cache of keys takes no other type for one."""

ROUNDING = 16 << 10
"""Bytes: the engine reports hundredths of a MiB, and one for each kind of cache."""


def grid(
    kinds: tuple[str, ...] = ("f32", "q8_0"), **fields: object
) -> Iterator[ContextParams]:
    """Contexts of all kinds, each parameter in two or three values."""
    for size, batch, micro, kind, sequences, flash in itertools.product(
        (512, 2048), (64, 512), (64, 512), kinds, (1, 4), ("auto", False)
    ):
        if micro <= batch and (flash or not kind.startswith("q")):
            yield ContextParams(
                context_size=size,
                batch_size=batch,
                micro_batch_size=micro,
                kv_type_k=kind,
                kv_type_v=kind,
                sequences=sequences,
                flash_attention=flash,
                **fields,
            )


def differences(path: Path, contexts: Iterator[ContextParams]) -> Iterator[str]:
    """What is wrong by too much, in words."""
    with llmcore.get_llama("llama_cpp") as llama:
        model = llama.load_model(path, gpu_layers=0)
        for params in contexts:
            with model.create_context(params) as context:
                actual = context.memory_info()
            expected = estimate(path, context=params, gpu_layers=0)
            if abs(expected.total / actual.total_allocated - 1) > MOST:
                yield f"{params}: {expected.total}, not {actual}"
            if abs(expected.of("cache") - actual.kv_cache_size) > ROUNDING:
                yield f"{params}: {expected.of('cache')} of cache, not {actual}"
            if expected.of("weights") != actual.model_size:
                yield f"{expected.of('weights')} of weights, not {actual.model_size}"


@pytest.mark.parametrize(
    ("make", "sizes", "kinds"),
    [
        (models.tiny_llama, {"heads": 8, "feed_forward": 512}, ("f32", "q8_0")),
        (models.tiny_sliding_window, {"window": 256}, ("f32", "q8_0")),
        (models.tiny_recurrent, {}, NO_KEYS),
    ],
)
def test_generated_models(tmp_path: Path, make, sizes, kinds):
    """Total within 5 %, cache and weights exact: attention, windows, states."""
    path = make(tmp_path / "model.gguf", context=2048, embedding=256, **sizes)

    assert [] == list(differences(path, grid(kinds)))


def test_encoder(tmp_path: Path):
    """Total within 5 % for a model that sees a whole text at once."""
    path = models.tiny_embedding(tmp_path / "model.gguf", embedding=256, context=2048)

    assert [] == list(differences(path, grid(NO_KEYS, embeddings=True)))


def test_real_model(smollm2: Path):
    """Total within 5 % for a real model, whose logits need the most."""
    contexts = (p for p in grid() if p.batch_size == p.micro_batch_size)

    assert [] == list(differences(smollm2, contexts))


def test_the_seeds_figures(smollm2: Path):
    """The cache of SmolLM2 in 32 bits has the size that the engine gives it."""
    for tokens, size in {8192: 377_487_360, 1024: 47_185_920}.items():
        params = ContextParams(context_size=tokens, kv_type_k="f32", kv_type_v="f32")
        assert size == estimate(smollm2, context=params).of("cache")


def test_encoders_are_known():
    """Both sides know the same architectures that keep nothing of a text."""
    assert set(ENGINES) == WITHOUT_CACHE
