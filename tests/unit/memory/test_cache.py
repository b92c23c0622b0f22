"""The bytes of a cache, against figures that were worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.memory.cache import AUTO_CONTEXT_SIZE, BLOCKS, Layout, cache_size
from llmcore.memory.estimate import estimate_context
from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.params import KV_TYPES, ContextParams

MIB, GIB = 1 << 20, 1 << 30


def cache(shape: ModelShape, size: int, kind: str, **fields: object) -> int:
    params = ContextParams(context_size=size, kv_type_k=kind, kv_type_v=kind, **fields)
    return estimate_context(shape, params).of("cache")


def plain(**fields: int) -> ModelShape:
    """One layer with a key and a value of 64 values each."""
    layer = LayerShape(heads=2, kv_heads=1, key_size=64, value_size=64, **fields)
    return ModelShape(embedding=128, vocabulary=100, layers=(layer,))


@pytest.mark.parametrize(
    ("sizes", "tokens", "kind", "expected"),
    [
        # SmolLM2-135M: 30 layers, 9 heads of 64 values, 3 of them cached
        ((30, 576, 9, 3), 8192, "f32", 377_487_360),
        ((30, 576, 9, 3), 1024, "f32", 47_185_920),
        # 7B without grouped heads
        ((32, 4096, 32, 32), 4096, "f32", 4 * GIB),
        ((32, 4096, 32, 32), 4096, "f16", 2 * GIB),
        ((32, 4096, 32, 32), 4096, "bf16", 2 * GIB),
        ((32, 4096, 32, 32), 4096, "q8_0", 1.0625 * GIB),
        ((32, 4096, 32, 32), 4096, "q5_1", 0.75 * GIB),
        ((32, 4096, 32, 32), 4096, "q5_0", 0.6875 * GIB),
        ((32, 4096, 32, 32), 4096, "q4_1", 0.625 * GIB),
        ((32, 4096, 32, 32), 4096, "q4_0", 0.5625 * GIB),
        ((32, 4096, 32, 32), 4096, "iq4_nl", 0.5625 * GIB),
        ((32, 4096, 32, 32), 512, "f16", 256 * MIB),
        ((32, 4096, 32, 32), 2048, "f16", 1 * GIB),
        ((32, 4096, 32, 32), 8192, "f16", 4 * GIB),
        ((32, 4096, 32, 32), 16384, "f16", 8 * GIB),
        ((32, 4096, 32, 32), 32768, "f16", 16 * GIB),
        # Llama-3-8B: 8 heads are cached
        ((32, 4096, 32, 8), 4096, "f16", 0.5 * GIB),
        # 13B
        ((40, 5120, 40, 40), 4096, "f16", 3.125 * GIB),
        # 70B: 8 heads of 128 are cached
        ((80, 8192, 64, 8), 4096, "f16", 1.25 * GIB),
        ((80, 8192, 64, 8), 4096, "q8_0", 0.6640625 * GIB),
    ],
)
def test_known_models(make_llama, sizes, tokens, kind, expected):
    """Heads that are cached, and the blocks of their type, decide; not the rest."""
    layers, embedding, heads, kv_heads = sizes
    header = make_llama(
        layers=layers, embedding=embedding, heads=heads, kv_heads=kv_heads
    )

    assert expected == cache(ModelShape.of(header), tokens, kind)


def test_every_type():
    """There is a size for every type that a cache can have."""
    assert set(KV_TYPES) == set(BLOCKS)


@given(
    st.integers(1, 64), st.integers(1, 16), st.sampled_from(KV_TYPES), st.integers(2, 5)
)
def test_linear(units, sequences, kind, times):
    """Twice the tokens, or twice the sequences, take twice the bytes."""
    once = cache(plain(), units * 256, kind, sequences=sequences)

    tokens, count = times * units * 256, times * sequences
    assert times * once == cache(plain(), tokens, kind, sequences=sequences)
    assert times * once == cache(plain(), units * 256, kind, sequences=count)


def test_keys_and_values_apart():
    """Keys and values can have types of their own."""
    params = ContextParams(context_size=256, kv_type_k="f16", kv_type_v="q8_0")

    assert 256 * 64 * (2 + 34 / 32) == estimate_context(plain(), params).of("cache")


@pytest.mark.parametrize(
    ("size", "sequences", "cells"),
    [(8, 1, 256), (257, 1, 512), (100, 4, 256), (300, 3, 512), (1024, 8, 1024)],
)
def test_rounded(size, sequences, cells):
    """Each sequence has its own tokens, rounded up to what the engine counts in."""
    params = ContextParams(context_size=size, sequences=sequences)

    assert cells == Layout.of(plain(), params).cells


@pytest.mark.parametrize(
    ("size", "micro_batch", "cells"),
    [(4096, 512, 1024), (4096, 64, 768), (512, 512, 512), (4096, 4000, 4096)],
)
def test_window(size, micro_batch, cells):
    """A window keeps what it sees and a micro batch more, rounded up; never more."""
    shape = plain(window=512)
    params = ContextParams(
        context_size=size, batch_size=4096, micro_batch_size=micro_batch
    )
    layout = Layout.of(shape, params)

    assert cells == layout.cells_of(shape.layers[0])
    assert cells * 64 * 2 * 2 == cache_size(shape.layers[0], layout)


def test_states_do_not_grow_with_the_context():
    """A recurrent state has its size for each sequence, at any length, in 32 bits."""
    shape = ModelShape(
        embedding=128, vocabulary=100, layers=(LayerShape(state=1000, history=24),)
    )

    assert 4 * 1024 == cache(shape, 256, "f16") == cache(shape, 8192, "q8_0")
    assert 3 * 4 * 1024 == cache(shape, 256, "f16", sequences=3)


def test_encoders_keep_nothing():
    """What sees a whole text at once has no cache."""
    layer = LayerShape(heads=2, kv_heads=2, key_size=64, value_size=64)
    shape = ModelShape(embedding=128, vocabulary=100, layers=(layer,), cached=False)

    assert 0 == cache(shape, 512, "f16", embeddings=True)


@pytest.mark.parametrize(
    ("asked", "trained", "cells"),
    [
        ("auto", 131072, AUTO_CONTEXT_SIZE),
        ("auto", 1024, 1024),
        ("auto", 0, AUTO_CONTEXT_SIZE),
        ((512, 8192), 0, 8192),
        ((512, 8192), 2048, 2048),
        ((4096, 8192), 2048, 4096),
    ],
)
def test_the_most_that_it_may_become(asked, trained, cells):
    """A length that is still to be chosen counts as the largest that it can be."""
    shape = ModelShape(embedding=1, vocabulary=1, layers=(), trained_context=trained)

    assert cells == Layout.of(shape, ContextParams(context_size=asked)).cells
