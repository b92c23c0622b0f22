"""
What a model and its contexts will need, before anything is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import fields as attrs_fields

from llmcore.errors import ModelLoadError
from llmcore.gguf_header import GGUFHeader
from llmcore.memory.budget import RAM
from llmcore.memory.cache import Layout, cache_size, state_bytes
from llmcore.memory.compute import compute_size, inputs_size, output_size
from llmcore.memory.footprint import Footprint, Purpose, Term
from llmcore.memory.placement import Placement, place
from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.model_file import check_model_file, read_gguf_header
from llmcore.params import ContextParams, ModelParams, merge
from llmcore.values import Device, ModelInfo

Source = str | os.PathLike[str] | GGUFHeader | ModelShape
"""A GGUF file, its header, or what was read from that before."""

_LARGEST = 2**62


def estimate(
    source: Source,
    *,
    model: ModelParams | None = None,
    context: ContextParams | None = None,
    devices: Sequence[Device] = (),
    **fields: Any,
) -> Footprint:
    """
    What a model needs, and a context on it, from the header of its file alone.

    The figures are those of llama.cpp, from the same decisions in the same order; other
    engines need about the same. Any thread.

    Args:
        source: A GGUF file; of a split one, the first part. Or its header.

        model: How it is to be loaded.

        context: How a context on it is to be created; without it, and without a field
            of it, only the weights are counted.

        devices: What there is, as `Llama.devices` tells it; without a GPU among them
            ``gpu_layers="auto"`` is none.

        fields: Or the fields of `ModelParams` and `ContextParams` one by one.

    Returns:
        A term for each part, with the reason of its size.

    Raises:
        ModelLoadError: It is no GGUF file, or a damaged one.

        TypeError: A field is unknown.
    """
    shape = shape_of(source)
    own = {attribute.name for attribute in attrs_fields(ModelParams)}
    model = merge(ModelParams, model, {k: v for k, v in fields.items() if k in own})
    rest = {name: value for name, value in fields.items() if name not in own}
    weights = estimate_weights(shape, model, devices=devices)
    if context is None and not rest:
        return weights
    context = merge(ContextParams, context, rest)
    return weights + estimate_context(shape, context, model=model, devices=devices)


def shape_of(source: Source) -> ModelShape:
    """
    The shape of a model file.

    Raises:
        ModelLoadError: It is no GGUF file, or a damaged one.
    """
    if isinstance(source, ModelShape):
        return source
    if not isinstance(source, GGUFHeader):
        source = read_gguf_header(source)
    return ModelShape.of(source)


def shape_of_loaded(path: Path | None, info: ModelInfo) -> ModelShape:
    """
    The shape of a loaded model: of its file, or a rough one from what is known of it.

    It is rough if there is no file, or none that can still be read, or no GGUF.
    """
    with contextlib.suppress(ModelLoadError):
        header = None if path is None else check_model_file(path, ("gguf", "other"))
        if header is not None:
            return ModelShape.of(header)
    return ModelShape.rough(info)


def estimate_weights(
    shape: ModelShape,
    params: ModelParams | None = None,
    *,
    devices: Sequence[Device] = (),
) -> Footprint:
    """What the tensors of a model take on each device."""
    params = params or ModelParams()
    where = place(shape, params, devices)
    return Footprint(tuple(_weights(shape, params, where)))


def estimate_context(
    shape: ModelShape,
    params: ContextParams | None = None,
    *,
    model: ModelParams | None = None,
    devices: Sequence[Device] = (),
) -> Footprint:
    """
    What a context takes on each device, besides the weights.

    Args:
        shape: Of its model.

        params: How it is to be created.

        model: How its model is, or will be, loaded.

        devices: See `estimate`.
    """
    layout = Layout.of(shape, params or ContextParams())
    where = place(shape, model or ModelParams(), devices)
    terms = (*_cache(shape, layout, where), *_compute(shape, layout, where))
    return Footprint(terms)


def _term(
    shape: ModelShape, device: str, purpose: Purpose, size: int, why: str
) -> Term:
    if shape.from_info:
        why += "; rough, since there is no header to read"
    # an absurd header has absurd sizes, and these do not fit anywhere
    return Term(device=device, purpose=purpose, size=min(size, _LARGEST), why=why)


def _weights(
    shape: ModelShape, params: ModelParams, where: Placement
) -> Iterator[Term]:
    kept = "pages of the file" if params.mmap else "read from the file"
    pinned = ", pinned" if params.mlock else ""

    def term(device: str, size: int, what: str) -> Term:
        how = f": {kept}{pinned}" if device == RAM else ""
        return _term(shape, device, "weights", size, what + how)

    yield term(RAM, shape.input_weights, "what comes before the layers")
    for device, group in where.groups(shape.layers):
        size = sum(layer.weights for _, layer in group)
        numbers = f", {group[0][0]} to {group[-1][0]}" if len(group) > 1 else ""
        yield term(device, size, _layers(len(group)) + numbers)
    yield term(where.output, shape.output_weights, "what comes after the layers")
    if where.output != RAM and shape.tied_weights:
        what = "a copy of the input matrix, which is the output's, too"
        yield term(where.output, shape.tied_weights, what)


def _cache(shape: ModelShape, layout: Layout, where: Placement) -> Iterator[Term]:
    if not shape.cached:
        return
    for device, group in where.groups(shape.layers):
        home = device if layout.offload else RAM
        kinds: dict[tuple[int, int, int], list[LayerShape]] = {}
        for _, layer in group:
            key = (layer.keys, layer.values, layer.window)
            kinds.setdefault(key, []).append(layer)
        for (keys, values, _), layers in kinds.items():
            if size := sum(cache_size(layer, layout) for layer in layers):
                why = _explained(layout, layers[0], len(layers), keys, values)
                yield _term(shape, home, "cache", size, why)
        if states := [layer for _, layer in group if layer.history or layer.state]:
            size = sum(state_bytes(layer, layout) for layer in states)
            why = f"states of {_layers(len(states))} x {layout.sequences} sequences"
            yield _term(shape, home, "cache", size, why)


def _explained(
    layout: Layout, layer: LayerShape, count: int, keys: int, values: int
) -> str:
    cells = layout.cells_of(layer)
    window = f" with a window of {layer.window}" if layer.window else ""
    return (
        f"{_layers(count)}{window}: {layout.sequences} x {cells} tokens "
        f"x ({keys} keys in {layout.type_k} + {values} values in {layout.type_v})"
    )


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _compute(shape: ModelShape, layout: Layout, where: Placement) -> Iterator[Term]:
    """
    A buffer on each device that has layers, and one of inputs in RAM if that has none.

    On several devices each is given room for all of a step: an upper bound.
    """
    step = compute_size(shape, layout)
    for device in where.devices:
        why = f"a step of {layout.tokens} tokens with their logits"
        yield _term(shape, device, "compute", step, why)
    if RAM not in where.devices:
        why = f"what a step of {layout.tokens} tokens is given"
        yield _term(shape, RAM, "compute", inputs_size(shape, layout), why)
    why = f"logits to be read, a token x {layout.sequences} sequences"
    yield _term(shape, RAM, "compute", output_size(shape, layout), why)
