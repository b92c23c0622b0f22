"""
Tiny models with random weights in the formats from before GGUF.

The formats are those of the converters that came with ggml: ``gpt-j/convert-h5-to-
ggml.py``, ``gpt-neox/convert-h5-to-ggml.py``, ``gpt-2/convert-h5-to-ggml.py``, and
``convert.py`` of llama.cpp up to August 2023.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

Array = NDArray[np.float32]

END_OF_TEXT = b"<|endoftext|>"
WORDS = [b" the", b" and", b"the", b"he", b"ing", b" hello", b"ell", b" capital"]
BYTES = [bytes([byte]) for byte in range(256)]
GPT_TOKENS = [*BYTES, *WORDS, END_OF_TEXT]
LLAMA_TOKENS = [b"", b"", b"", *BYTES, *WORDS]

F32, F16, Q4_0 = 0, 1, 2
EMBEDDING, HEADS, LAYERS, POSITIONS = 64, 4, 2, 64


@frozen(kw_only=True)
class Image:
    """A file in pieces; `bytes(image)` puts it together."""

    magic: bytes
    numbers: Mapping[str, int]
    tokens: list[bytes]
    tensors: Mapping[str, Array]
    repeats: bool = False
    scores: bool = False
    alignment: int = 1
    kinds: Mapping[str, int] = field(factory=dict)

    @property
    def header(self) -> bytes:
        """What comes before the tensors."""
        numbers = list(self.numbers.values())
        if self.repeats:
            numbers.append(len(self.tokens))
        parts = [self.magic, struct.pack(f"<{len(numbers)}I", *numbers)]
        for number, token in enumerate(self.tokens):
            parts.append(struct.pack("<I", len(token)) + token)
            if self.scores:
                parts.append(struct.pack("<f", float(len(token) or -number)))
        return b"".join(parts)

    def __bytes__(self) -> bytes:
        raw = bytearray(self.header)
        for name, values in self.tensors.items():
            kind = self.kinds.get(name, F32)
            shape = values.shape[::-1]
            raw += struct.pack("<3I", len(shape), len(name), kind)
            raw += struct.pack(f"<{len(shape)}I", *shape) + name.encode()
            raw += bytes(-len(raw) % self.alignment)
            raw += ENCODERS[kind](values)
        return bytes(raw)

    def write(self, path: Path) -> Path:
        """Write the file."""
        path.write_bytes(bytes(self))
        return path


def _q4_0(values: Array) -> bytes:
    """Blocks of 32 values of 4 bits, with a scale of 16 bits."""
    blocks = values.reshape(-1, 32)
    peaks = np.take_along_axis(blocks, abs(blocks).argmax(1)[:, None], 1)
    scales = peaks / -8
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    with np.errstate(invalid="ignore"):
        quants = np.clip(blocks * inverse + 8.5, 0, 15).astype(np.uint8)
    packed = quants[:, :16] | quants[:, 16:] << 4
    return np.hstack([scales.astype("<f2").view(np.uint8), packed]).tobytes()


ENCODERS: dict[int, Callable[[Array], bytes]] = {
    F32: lambda values: values.astype("<f4").tobytes(),
    F16: lambda values: values.astype("<f2").tobytes(),
    Q4_0: _q4_0,
}


class Weights:
    """Draws weights; the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, size: float = 1.0) -> Array:
        values = self._random.standard_normal((rows, columns)) * size
        return (values / np.sqrt(columns)).astype(np.float32)

    def bias(self, size: int) -> Array:
        return (0.1 * self._random.standard_normal(size)).astype(np.float32)

    def gain(self, size: int) -> Array:
        return 1 + self.bias(size)


def gpt2(*, kind: int = F32, **changes: int) -> Image:
    """GPT-2, with a head of its own."""
    sizes = _sizes(kind, changes, "type")
    width, weights = sizes["embedding"], Weights()
    tensors: dict[str, Array] = {
        "model/wte": weights.matrix(sizes["vocabulary"], width, 4),
        "model/wpe": weights.matrix(sizes["positions"], width, 4),
        "model/lm_head": weights.matrix(sizes["vocabulary"], width, 4),
        "model/ln_f/g": weights.gain(width),
        "model/ln_f/b": weights.bias(width),
    }
    for layer in range(sizes["layers"]):
        for name, values in _gpt2_layer(weights, width):
            tensors[f"model/h{layer}/{name}"] = values
    return _gpt(sizes, tensors, kind, repeats=True, plain={"model/wpe"})


def _gpt2_layer(weights: Weights, width: int) -> Iterator[tuple[str, Array]]:
    yield from _norm(weights, "ln_1/g", "ln_1/b", width).items()
    yield from _norm(weights, "ln_2/g", "ln_2/b", width).items()
    for name, rows, columns in (
        ("attn/c_attn", 3 * width, width),
        ("attn/c_proj", width, width),
        ("mlp/c_fc", 4 * width, width),
        ("mlp/c_proj", width, 4 * width),
    ):
        yield f"{name}/w", weights.matrix(rows, columns)
        yield f"{name}/b", weights.bias(rows)


def gptj(*, kind: int = F32, **changes: int) -> Image:
    """GPT-J."""
    sizes = _sizes(kind, {"rotated": 8} | changes, "rotated", "type")
    width, weights = sizes["embedding"], Weights()
    tensors: dict[str, Array] = {
        "transformer.wte.weight": weights.matrix(sizes["vocabulary"], width, 4),
        "transformer.ln_f.weight": weights.gain(width),
        "transformer.ln_f.bias": weights.bias(width),
        "lm_head.weight": weights.matrix(sizes["vocabulary"], width, 4),
        "lm_head.bias": weights.bias(sizes["vocabulary"]),
    }
    for layer in range(sizes["layers"]):
        block = f"transformer.h.{layer}."
        tensors |= _norm(weights, f"{block}ln_1.weight", f"{block}ln_1.bias", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors[f"{block}attn.{name}.weight"] = weights.matrix(width, width)
        tensors[f"{block}mlp.fc_in.weight"] = weights.matrix(4 * width, width)
        tensors[f"{block}mlp.fc_in.bias"] = weights.bias(4 * width)
        tensors[f"{block}mlp.fc_out.weight"] = weights.matrix(width, 4 * width)
        tensors[f"{block}mlp.fc_out.bias"] = weights.bias(width)
    return _gpt(sizes, tensors, kind, repeats=True)


def gptneox(*, kind: int = F32, **changes: int) -> Image:
    """GPT-NeoX, the base of Pythia, StableLM and Dolly 2."""
    changes = {"rotated": 8, "parallel": 1} | changes
    sizes = _sizes(kind, changes, "rotated", "parallel", "type")
    width, weights = sizes["embedding"], Weights()
    tensors: dict[str, Array] = {
        "gpt_neox.embed_in.weight": weights.matrix(sizes["vocabulary"], width, 4),
        "gpt_neox.final_layer_norm.weight": weights.gain(width),
        "gpt_neox.final_layer_norm.bias": weights.bias(width),
        "embed_out.weight": weights.matrix(sizes["vocabulary"], width, 4),
    }
    for layer in range(sizes["layers"]):
        block = f"gpt_neox.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = f"{block}{name}"
            tensors |= _norm(weights, f"{norm}.weight", f"{norm}.bias", width)
        for name, rows, columns in (
            ("attention.query_key_value", 3 * width, width),
            ("attention.dense", width, width),
            ("mlp.dense_h_to_4h", 4 * width, width),
            ("mlp.dense_4h_to_h", width, 4 * width),
        ):
            tensors[f"{block}{name}.weight"] = weights.matrix(rows, columns)
            tensors[f"{block}{name}.bias"] = weights.bias(rows)
    return _gpt(sizes, tensors, kind)


def llama(
    *,
    magic: bytes = b"tjgg",
    version: int = 3,
    heads: int = HEADS,
    groups: int = 1,
    kind: int = F32,
) -> Image:
    """
    A Llama in the format ggjt or ggmf.

    Args:
        magic: Of the format.

        version: Of the format.

        groups: How many heads share a key.

        kind: What the header says of most tensors, which are F32 all the same.
    """
    width, multiple = EMBEDDING, 32
    inner = -(-(8 * width // 3) // multiple) * multiple
    numbers = {
        "version": version,
        "vocabulary": len(LLAMA_TOKENS),
        "embedding": width,
        "multiple": multiple,
        "heads": heads,
        "layers": LAYERS,
        "rotated": width // heads,
        "type": kind,
    }
    return Image(
        magic=magic,
        numbers=numbers,
        tokens=LLAMA_TOKENS,
        tensors=dict(_llama_tensors(width, inner, width // groups)),
        scores=True,
        alignment=32 if magic == b"tjgg" else 1,
    )


def _llama_tensors(width: int, inner: int, keys: int) -> Iterator[tuple[str, Array]]:
    weights, size = Weights(), len(LLAMA_TOKENS)
    yield "tok_embeddings.weight", weights.matrix(size, width, 4)
    yield "norm.weight", weights.gain(width)
    yield "output.weight", weights.matrix(size, width, 4)
    for layer in range(LAYERS):
        block = f"layers.{layer}."
        yield f"{block}attention_norm.weight", weights.gain(width)
        for name, rows in (("wq", width), ("wk", keys), ("wv", keys), ("wo", width)):
            yield f"{block}attention.{name}.weight", weights.matrix(rows, width)
        yield f"{block}ffn_norm.weight", weights.gain(width)
        yield f"{block}feed_forward.w1.weight", weights.matrix(inner, width)
        yield f"{block}feed_forward.w2.weight", weights.matrix(width, inner)
        yield f"{block}feed_forward.w3.weight", weights.matrix(inner, width)


def _norm(weights: Weights, gain: str, bias: str, width: int) -> dict[str, Array]:
    return {gain: weights.gain(width), bias: weights.bias(width)}


def _sizes(kind: int, changes: Mapping[str, int], *more: str) -> dict[str, int]:
    sizes = {
        "vocabulary": len(GPT_TOKENS),
        "positions": POSITIONS,
        "embedding": EMBEDDING,
        "heads": HEADS,
        "layers": LAYERS,
    }
    version = 2000 if kind > F16 else 0
    return sizes | dict.fromkeys(more, 0) | {"type": version + kind} | changes


def _gpt(
    sizes: dict[str, int],
    tensors: dict[str, Array],
    kind: int,
    *,
    repeats: bool = False,
    plain: set[str] | None = None,
) -> Image:
    matrices = {name for name, values in tensors.items() if values.ndim == 2}
    return Image(
        magic=b"lmgg",
        numbers=sizes,
        tokens=GPT_TOKENS,
        tensors=tensors,
        repeats=repeats,
        kinds=dict.fromkeys(matrices - (plain or set()), kind),
    )


MAKERS = {"gpt2": gpt2, "gptj": gptj, "gptneox": gptneox, "llama": llama}
"""By the name of the architecture."""
