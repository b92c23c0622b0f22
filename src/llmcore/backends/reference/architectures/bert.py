"""
BERT (Devlin et al. 2018, arXiv:1810.04805): each token sees the whole text, so there is
nothing to generate and nothing to remember; the vectors are what it is for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from llmcore.backends.reference.attention import Heads
from llmcore.backends.reference.caches import NoCache
from llmcore.backends.reference.gguf_file import (
    Array,
    InvalidModelError,
    Settings,
    Weights,
)
from llmcore.backends.reference.network import Network, Step
from llmcore.backends.reference.numerics import attend, gelu, layer_norm
from llmcore.errors import CapabilityError
from llmcore.values import CacheKind


class Norm:
    """A layer normalisation with its weights."""

    def __init__(self, settings: Settings, weights: Weights, name: str) -> None:
        width = settings.integer("embedding_length")
        self._weight = weights.take(f"{name}.weight", width)
        self._bias = weights.take(f"{name}.bias", width)
        self._epsilon = settings.number("attention.layer_norm_epsilon")

    def __call__(self, x: Array) -> Array:
        """Shapes (rows, embedding)."""
        return layer_norm(x, self._weight, self._bias, self._epsilon)


class BertBlock:
    """One layer; normalises after each part."""

    def __init__(self, settings: Settings, weights: Weights, block: str) -> None:
        width = settings.integer("embedding_length")
        inner = settings.integer("feed_forward_length")
        self._size = Heads.read(settings).size
        self._query, self._key, self._value, self._output = (
            weights.linear(f"{block}attn_{name}", width, width)
            for name in ("q", "k", "v", "output")
        )
        self._attention_norm = Norm(settings, weights, f"{block}attn_output_norm")
        self._up = weights.linear(f"{block}ffn_up", inner, width)
        self._down = weights.linear(f"{block}ffn_down", width, inner)
        self._norm = Norm(settings, weights, f"{block}layer_output_norm")

    def __call__(self, x: Array, step: Step) -> Array:
        """Attention within each text, then the feed-forward layer."""
        queries, keys, values = (
            part(x).reshape(len(x), -1, self._size)
            for part in (self._query, self._key, self._value)
        )
        mixed = np.empty_like(queries)
        for rows, _ in step.parts:
            seen = keys[rows].swapaxes(0, 1), values[rows].swapaxes(0, 1)
            visible = np.ones((len(rows), len(rows)), bool)
            mixed[rows] = attend(queries[rows], *seen, visible, self._size**-0.5)
        x = self._attention_norm(x + self._output(mixed.reshape(len(x), -1)))
        return self._norm(x + self._down(gelu(self._up(x))))


class Architecture(Network):
    """The whole network."""

    kind = CacheKind.NONE

    def __init__(self, settings: Settings, weights: Weights) -> None:
        heads = Heads.read(settings)
        width = settings.integer("embedding_length")
        if heads.key_count != heads.count or heads.count * heads.size != width:
            raise InvalidModelError(
                f"{heads.count} heads do not make a width of {width}"
            )
        vocabulary = len(settings.array("tokenizer.ggml.tokens"))
        types = settings.metadata.get("tokenizer.ggml.token_type_count", 0)
        length = settings.integer("context_length")
        self._tokens = weights.take("token_embd.weight", vocabulary, width)
        self._positions = weights.take("position_embd.weight", length, width)
        self._types = weights.take("token_types.weight", types, width)
        self._norm = Norm(settings, weights, "token_embd_norm")
        self._blocks = [
            BertBlock(settings, weights, f"blk.{layer}.")
            for layer in range(settings.integer("block_count"))
        ]

    def create_cache(self, length: int, types: tuple[DTypeLike, DTypeLike]) -> NoCache:
        """None."""
        return NoCache(length)

    def hidden(self, step: Step) -> Array:
        """The vectors after the last layer; all text is of the first type."""
        x = self._tokens[step.tokens] + self._types[0] + self._positions[step.positions]
        x = self._norm(x)
        for block in self._blocks:
            step.check()
            x = block(x, step)
        return x

    def logits(self, hidden: Array) -> Array:
        """None: it predicts no tokens."""
        raise CapabilityError("an encoder predicts no tokens and has no logits")
