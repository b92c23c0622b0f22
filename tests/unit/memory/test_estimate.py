"""What a model and a context will need, and on which device."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.errors import ModelLoadError
from llmcore.memory.arena import Arena
from llmcore.memory.estimate import (
    estimate,
    estimate_context,
    estimate_weights,
    shape_of,
    shape_of_loaded,
)
from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.params import ContextParams, ModelParams
from llmcore.values import Device, ModelInfo
from llmcore_conformance.models import tiny_llama

LAYER = LayerShape(
    weights=1000, heads=4, kv_heads=2, key_size=32, value_size=32, feed_forward=256
)
SHAPE = ModelShape(
    embedding=128,
    vocabulary=1000,
    layers=(LAYER,) * 4,
    input_weights=70,
    output_weights=5,
    tied_weights=60,
)
GPU = Device(name="CUDA0", kind="gpu", free=100)
SECOND = Device(name="CUDA1", kind="gpu", free=300)
CPU = Device(name="CPU", kind="cpu", free=1000)


def weights(layers: int | str, *devices: Device) -> dict[str, int]:
    params = ModelParams(gpu_layers=layers)
    return dict(estimate_weights(SHAPE, params, devices=devices).devices)


# -- where -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (0, {"cpu": 4075}),
        (1, {"cpu": 4070, "CUDA0": 65}),  # the output comes first, with its matrix
        (2, {"cpu": 3070, "CUDA0": 1065}),
        (5, {"cpu": 70, "CUDA0": 4065}),
        (99, {"cpu": 70, "CUDA0": 4065}),
        ("auto", {"cpu": 70, "CUDA0": 4065}),
    ],
)
def test_layers_on_a_gpu(layers, expected):
    """The last layers go to the GPU, after the output; the input stays in RAM."""
    assert expected == weights(layers, CPU, GPU)


def test_no_gpu():
    """Without a GPU "auto" places nothing on one; a number stands for one to come."""
    assert {"cpu": 4075} == weights("auto", CPU)
    assert {"cpu": 3070, "gpu": 1065} == weights(2)


def test_several_gpus():
    """Layers are split by the memory that the GPUs have free."""
    assert {"cpu": 70, "CUDA0": 2000, "CUDA1": 2065} == weights("auto", GPU, SECOND)


def test_cache_follows_its_layer():
    """The cache of a layer is where the layer is, or all in RAM if so asked."""
    model, context = ModelParams(gpu_layers=2), ContextParams(context_size=256)
    footprint = estimate_context(SHAPE, context, model=model, devices=[GPU])
    one = 256 * 64 * 2 * 2
    on = {t.device: t.size for t in footprint if t.purpose == "cache"}
    assert {"cpu": 3 * one, "CUDA0": one} == on

    context = ContextParams(context_size=256, offload_kv=False)
    footprint = estimate_context(SHAPE, context, model=model, devices=[GPU])
    assert {"cpu"} == {t.device for t in footprint if t.purpose == "cache"}
    assert 4 * one == footprint.of("cache")


def test_computing_devices():
    """Each device that has layers has a buffer; RAM has one of inputs in any case."""
    context = ContextParams(context_size=256)
    whole = estimate_context(SHAPE, context).on("cpu")
    model = ModelParams(gpu_layers="auto")
    there = estimate_context(SHAPE, context, model=model, devices=[GPU])

    assert there.on("CUDA0") > 0
    assert 0 < there.on("cpu") < whole


# -- how much --------------------------------------------------------------------------


@given(st.integers(1, 16), st.integers(1, 8), st.sampled_from([64, 512]), st.booleans())
def test_more_tokens_need_no_less(units, sequences, batch, flash):
    """A longer context or a larger batch never needs fewer bytes of cache and masks."""
    fields = {"sequences": sequences, "flash_attention": flash}
    params = ContextParams(context_size=units * 256, batch_size=batch, **fields)
    longer = ContextParams(context_size=2 * units * 256, batch_size=batch, **fields)

    shorter_needs = estimate_context(SHAPE, params)
    assert estimate_context(SHAPE, longer).total >= shorter_needs.total
    assert shorter_needs.of("cache") > 0


def test_flash_attention_writes_no_scores():
    """Without flash attention all scores of a step are held at once."""
    plain = ContextParams(context_size=4096, flash_attention=False)
    flash = ContextParams(context_size=4096, flash_attention=True)
    scores = 512 * 4096 * LAYER.heads * 4

    assert estimate_context(SHAPE, plain).of("compute") > scores
    assert estimate_context(SHAPE, flash).of("compute") < scores


def test_the_widest_part_decides():
    """Parts of a step share their room: more of the same layers need no more of it."""
    network = LayerShape(feed_forward=100_000)
    alone = ModelShape(embedding=128, vocabulary=10, layers=(network,))
    mixed = ModelShape(embedding=128, vocabulary=10, layers=(LAYER, network) * 3)
    params = ContextParams(context_size=256)
    products = 3 * 256 * 100_000 * 4

    for shape in (alone, mixed):
        assert products < estimate_context(shape, params).of("compute") < 1.1 * products


def test_absurd_sizes():
    """Sizes beyond all memory are no error: they do not fit anywhere."""
    layer = LayerShape(kv_heads=2**30, key_size=2**30, value_size=2**30)
    shape = ModelShape(embedding=1, vocabulary=1, layers=(layer,))

    assert estimate_context(shape, ContextParams()).of("cache") >= 2**62


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_arena(sizes):
    """What is held at once fits in the buffer, and apart; what is freed is used."""
    arena = Arena()
    blocks = [arena.take(size) for size in sizes]
    whole = arena.peak
    ends = sorted((block.start, block.start + block.size) for block in blocks)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert whole == ends[-1][1]

    arena.give(*blocks)
    assert 0 == arena.take(whole).start
    assert whole == arena.peak


# -- what it is asked for --------------------------------------------------------------


def test_weights_alone(tmp_path: Path):
    """Without a context only the weights are counted; with one, both."""
    path = tiny_llama(tmp_path / "model.gguf")

    alone = estimate(path)
    both = estimate(path, context=ContextParams(context_size=256))
    assert {"weights"} == set(alone.purposes)
    assert {"weights", "cache", "compute"} == set(both.purposes)
    assert alone.of("weights") == both.of("weights") == shape_of(path).weights


def test_fields(tmp_path: Path):
    """Fields of both parameters can stand alone; an unknown one is named."""
    path = tiny_llama(tmp_path / "model.gguf")

    footprint = estimate(path, gpu_layers=1, context_size=512)
    assert {"cpu", "gpu"} == set(footprint.devices)
    with pytest.raises(TypeError, match="'contextsize'"):
        estimate(path, contextsize=512)


def test_sources(tmp_path: Path):
    """A path, a header and a shape say the same; what is no model is an error."""
    from llmcore.model_file import read_gguf_header

    path = tiny_llama(tmp_path / "model.gguf")
    header = read_gguf_header(path)

    assert estimate(path) == estimate(header) == estimate(ModelShape.of(header))
    with pytest.raises(ModelLoadError, match="there is no such file"):
        estimate(tmp_path / "other.gguf")


def test_reasons():
    """Each term says why, and whether that is only a guess."""
    info = ModelInfo(architecture="x", vocab_size=10, embedding_size=8, layers=1)
    rough = shape_of_loaded(None, info)

    assert all(term.why for term in estimate(SHAPE, context=ContextParams()))
    assert not any("rough" in t.why for t in estimate(SHAPE, context_size=256))
    assert all("rough" in t.why for t in estimate(rough, context_size=256))
    assert "pinned" in estimate(SHAPE, mlock=True).explain()


def test_loaded_files(tmp_path: Path):
    """The shape of a loaded GGUF file is that of its header; of others it is rough."""
    path = tiny_llama(tmp_path / "model.gguf")
    other = tmp_path / "model.bin"
    other.write_bytes(b"lmgg" * 100)
    info = ModelInfo(architecture="llama", vocab_size=10)

    assert shape_of(path) == shape_of_loaded(path, info)
    assert shape_of_loaded(other, info).from_info
    assert shape_of_loaded(tmp_path / "deleted.gguf", info).from_info
