"""What a header says of the sizes of a model, layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcore.errors import ModelLoadError
from llmcore.gguf_header import GGUFArray
from llmcore.memory.shape import ModelShape
from llmcore.model_file import read_gguf_header
from llmcore.values import CacheKind, ModelInfo
from llmcore_conformance import models

PLAIN = {
    "embedding_length": 256,
    "attention.head_count": 8,
    "attention.head_count_kv": 4,
    "feed_forward_length": 512,
}


def windows(shape: ModelShape) -> list[int]:
    return [layer.window for layer in shape.layers]


def test_heads(make_llama):
    """Sizes of heads are given, or the embedding is divided among the heads."""
    divided = ModelShape.of(make_llama(layers=1, embedding=256, heads=8, kv_heads=2))
    sizes = {"attention.key_length": 48, "attention.value_length": 40}
    given = ModelShape.of(make_llama(layers=1, embedding=256, heads=8, **sizes))

    assert (64, 64) == (divided.layers[0].keys, divided.layers[0].values)
    assert (8 * 48, 8 * 40) == (given.layers[0].keys, given.layers[0].values)


def test_heads_of_each_layer(make_llama):
    """A number of heads can be given for each layer."""
    header = make_llama(
        layers=3,
        embedding=256,
        heads=8,
        **{"attention.head_count_kv": (8, 2, 1)},
    )

    assert [256, 64, 32] == [layer.keys for layer in ModelShape.of(header).layers]


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("gemma2", {}, [4096, 0, 4096, 0, 4096, 0, 4096, 0]),
        ("gemma3", {}, [0] * 8),
        ("gemma3", {"attention.sliding_window": 512}, [512] * 5 + [0] + [512] * 2),
        ("cohere2", {"attention.sliding_window": 64}, [64, 64, 64, 0] * 2),
        ("cohere2moe", {"attention.sliding_window": 64}, [0, 64, 64, 64] * 2),
        ("gpt-oss", {"attention.sliding_window": 128}, [128, 0] * 4),
        ("llama4", {}, [8192, 8192, 8192, 0] * 2),
        ("llama4", {"attention.sliding_window": 0}, [0] * 8),
        ("exaone4", {}, [0] * 8),  # only its 64 layers have windows
        ("phi3", {"attention.sliding_window": 2048}, [0] * 8),
        ("llama", {"attention.sliding_window": 2048}, [0] * 8),
    ],
)
def test_windows(make_header, architecture, keys, expected):
    """Which layers see only the last tokens is the architecture's own rule."""
    header = make_header(architecture, {"block_count": 8, **PLAIN, **keys})

    assert expected == windows(ModelShape.of(header))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(2, [64, 0, 64, 0]), ((True, False, False, True), [64, 0, 0, 64]), (0, [64] * 4)],
)
def test_window_patterns(make_header, pattern, expected):
    """A file can give the period of its windows, or one flag per layer."""
    keys = {
        "attention.sliding_window": 64,
        "attention.sliding_window_pattern": pattern,
    }
    header = make_header("gemma3", {"block_count": 4, **PLAIN, **keys})

    assert expected == windows(ModelShape.of(header))


def test_shared_caches(make_header):
    """Layers that use the cache of an earlier layer have none of their own."""
    keys = {
        "attention.sliding_window": 64,
        "attention.sliding_window_pattern": (True, False) * 2,
        "attention.shared_kv_layers": 2,
    }
    shape = ModelShape.of(make_header("gemma4", {"block_count": 4, **PLAIN, **keys}))

    assert [True, True, False, False] == [bool(la.keys) for la in shape.layers]
    assert [8] * 4 == [layer.heads for layer in shape.layers]


def test_keys_and_values_in_one(make_header):
    """With multi-head latent attention one short key per token is all there is."""
    keys = {
        "block_count": 2,
        "embedding_length": 2048,
        "attention.head_count": 16,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }
    [layer, _] = ModelShape.of(make_header("deepseek2", keys)).layers

    assert (576, 0) == (layer.keys, layer.values)


def test_predicting_layers(make_header):
    """Layers that predict further tokens are not loaded, but are counted as layers."""
    keys = {"block_count": 3, "nextn_predict_layers": 1, **PLAIN}
    tensors = {f"blk.{n}.attn_q.weight": ((256, 256), 100) for n in range(3)}
    shape = ModelShape.of(make_header("glm4moe", keys, tensors))

    assert [100, 100, 0] == [layer.weights for layer in shape.layers]
    assert [128, 128, 0] == [layer.keys for layer in shape.layers]
    assert 200 == shape.weights


@pytest.mark.parametrize(
    ("architecture", "keys", "kind", "states", "caches"),
    [
        (
            "mamba2",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 128}
            | {"ssm.group_count": 8},
            CacheKind.RECURRENT,
            [3 * (512 + 2 * 8 * 128) + 128 * 512] * 4,
            [0] * 4,
        ),
        (
            "rwkv7",
            {"wkv.head_size": 64},
            CacheKind.RECURRENT,
            [(2 + 64) * 256] * 4,
            [0] * 4,
        ),
        (
            "jamba",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16}
            | {"attention.head_count_kv": (0, 0, 4, 0)},
            CacheKind.HYBRID,
            [3 * 512 + 16 * 512] * 2 + [0] + [3 * 512 + 16 * 512],
            [0, 0, 128, 0],
        ),
        (
            "falcon-h1",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16},
            CacheKind.HYBRID,
            [3 * 512 + 16 * 512] * 4,
            [128] * 4,
        ),
        (
            "qwen3next",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16}
            | {"full_attention_interval": 2},
            CacheKind.HYBRID,
            [3 * 512 + 16 * 512, 0] * 2,
            [0, 128] * 2,
        ),
        (
            "lfm2",
            {"shortconv.l_cache": 3, "attention.head_count_kv": (0, 4, 0, 4)},
            CacheKind.HYBRID,
            [2 * 256, 0] * 2,
            [0, 128] * 2,
        ),
        (
            "nemotron_h",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16}
            | {"attention.head_count_kv": (0, 4, 0, 0)}
            | {"feed_forward_length": (0, 0, 512, 0)},
            CacheKind.HYBRID,
            [3 * 512 + 16 * 512, 0, 0, 3 * 512 + 16 * 512],
            [0, 128, 0, 0],
        ),
    ],
)
def test_states(make_header, architecture, keys, kind, states, caches):
    """Recurrent layers keep a state; which they are is the architecture's own rule."""
    header = make_header(architecture, {"block_count": 4, **PLAIN, **keys})
    shape = ModelShape.of(header)

    assert kind is shape.cache_kind
    assert states == [layer.history + layer.state for layer in shape.layers]
    assert caches == [layer.keys for layer in shape.layers]


def test_experts(make_header):
    """The work of a layer with experts is that of those a token is sent to."""
    keys = {
        "block_count": 2,
        "expert_count": 64,
        "expert_used_count": 6,
        "expert_feed_forward_length": 96,
    }
    tensors = {
        "blk.0.ffn_up.weight": ((256, 512), 1),
        "blk.1.ffn_up_exps.weight": ((256, 96, 64), 1),
    }
    shape = ModelShape.of(make_header("qwen2moe", {**PLAIN, **keys}, tensors))

    assert [512, 6 * 96] == [layer.feed_forward for layer in shape.layers]
    assert [1, 6] == [layer.experts for layer in shape.layers]


def test_weights(make_header):
    """Each tensor counts once: before the layers, in one of them, or after them."""
    tensors = {
        "token_embd.weight": ((256, 1000), 1000),
        "rope_freqs.weight": ((64,), 20),
        "blk.0.attn_q.weight": ((256, 256), 300),
        "blk.1.attn_q.weight": ((256, 256), 4000),
        "output_norm.weight": ((256,), 50),
        "output.weight": ((256, 1000), 60000),
    }
    shape = ModelShape.of(make_header("llama", {"block_count": 2, **PLAIN}, tensors))

    assert (1020, 60050) == (shape.input_weights, shape.output_weights)
    assert [300, 4000] == [layer.weights for layer in shape.layers]
    assert sum(size for _, size in tensors.values()) == shape.weights
    assert (1000, 0) == (shape.vocabulary, shape.tied_weights)


def test_one_matrix_for_both_ends(make_header):
    """A file without an output matrix uses the one of the input."""
    tensors = {"token_embd.weight": ((256, 1000), 1000)}
    shape = ModelShape.of(make_header("llama", {"block_count": 1, **PLAIN}, tensors))

    assert (1000, 0, 1000) == (
        shape.input_weights,
        shape.output_weights,
        shape.tied_weights,
    )


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (models.tiny_llama, CacheKind.FULL),
        (models.tiny_sliding_window, CacheKind.SLIDING_WINDOW),
        (models.tiny_recurrent, CacheKind.RECURRENT),
        (models.tiny_embedding, CacheKind.NONE),
    ],
)
def test_real_files(tmp_path: Path, make, kind):
    """The kind of cache of a real file is told by its header."""
    shape = ModelShape.of(read_gguf_header(make(tmp_path / "model.gguf")))

    assert kind is shape.cache_kind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", "eight"),
        ("attention.head_count", -1),
        ("attention.head_count_kv", (4, 4)),
        ("attention.head_count_kv", GGUFArray(type="i32", count=2000)),
        ("attention.key_length", 2**40),
        ("feed_forward_length", 0.5),
        ("block_count", 2**30),
    ],
)
def test_nonsense(make_header, key, value):
    """A number that makes no sense is an error that names its key."""
    header = make_header("llama", {"block_count": 3, **PLAIN, key: value})

    with pytest.raises(ModelLoadError, match=rf"'llama\.{key}'"):
        ModelShape.of(header)


def test_without_a_header():
    """The facts about a loaded model make a rough shape."""
    info = ModelInfo(
        architecture="gpt2",
        vocab_size=1000,
        embedding_size=64,
        layers=2,
        heads=4,
        kv_heads=2,
        size_bytes=5000,
    )
    shape = ModelShape.rough(info)

    assert shape.from_info
    assert 5000 == shape.weights
    assert [32, 32] == [layer.keys for layer in shape.layers]
