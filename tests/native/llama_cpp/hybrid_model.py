"""A tiny model with both kinds of memory: a cache for attention, and a state."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import gguf

from llmcore_conformance import models
from llmcore_conformance.models import CHAT_TEMPLATE, Dense


def tiny_hybrid(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    embedding: int = 64,
    context: int = 1024,
) -> Path:
    """An LFM2 of two layers: a short convolution, and attention."""
    heads, kv_heads, feed_forward, kernel = 2, [0, 1], 96, 3
    writer = gguf.GGUFWriter(path, "lfm2")
    models._sizes(writer, len(kv_heads), embedding, heads, 0, feed_forward, context)
    writer.add_key_value(
        "lfm2.attention.head_count_kv",
        kv_heads,
        gguf.GGUFValueType.ARRAY,
        gguf.GGUFValueType.INT32,
    )
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_shortconv_l_cache(kernel)
    models._vocabulary(writer, CHAT_TEMPLATE)
    dense = Dense(writer, seed)
    _ends(dense, embedding)
    _convolution(dense, "blk.0.", embedding, kernel)
    models._attention(dense, "blk.1.", embedding, heads, 1)
    for name in ("attn_q_norm", "attn_k_norm"):
        dense.ones(f"blk.1.{name}.weight", embedding // heads)
    for layer in range(len(kv_heads)):
        models._feed_forward(dense, f"blk.{layer}.", embedding, feed_forward)
    return models._write(writer, path)


def _convolution(dense: Dense, block: str, embedding: int, kernel: int) -> None:
    dense.ones(f"{block}attn_norm.weight", embedding)
    dense.matrix(f"{block}shortconv.conv.weight", embedding, kernel)
    dense.matrix(f"{block}shortconv.in_proj.weight", 3 * embedding, embedding)
    dense.matrix(f"{block}shortconv.out_proj.weight", embedding, embedding)


def _ends(dense: Dense, embedding: int) -> None:
    size = len(list(models._tokens()))
    dense.write("token_embd.weight", 0.25 * dense.normal(size, embedding))
    dense.ones("token_embd_norm.weight", embedding)
    dense.write("output.weight", dense.normal(size, embedding))
