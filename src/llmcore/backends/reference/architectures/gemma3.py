"""
Gemma 3 (Gemma Team 2025, arXiv:2503.19786): most layers see a sliding window only, and
each part stands between two normalisations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llmcore.backends.reference.attention import Attention, Heads
from llmcore.backends.reference.gguf_file import Array, Settings, Weights
from llmcore.backends.reference.key_values import KeyValueCache
from llmcore.backends.reference.network import Block, Decoder, Step
from llmcore.backends.reference.numerics import gelu, rms_norm
from llmcore.backends.reference.rotation import Rotation, plain_frequencies, rotation

LAYERS_OF_27B = 62
"""The one size whose scores are scaled by the width of the model, not of a head."""


class GemmaBlock(Block):
    """One layer."""

    def __init__(
        self,
        settings: Settings,
        weights: Weights,
        block: str,
        turn: Rotation,
        window: int | None,
    ) -> None:
        width = settings.integer("embedding_length")
        inner = settings.integer("feed_forward_length")
        self._epsilon = settings.number("attention.layer_norm_rms_epsilon")
        self.attention = Attention(
            settings,
            weights,
            block,
            turn,
            scale=_scale(settings),
            norm_epsilon=self._epsilon,
            window=window,
        )
        self._before, self._after, self._before_ffn, self._after_ffn = (
            weights.take(f"{block}{name}.weight", width)
            for name in (
                "attn_norm",
                "post_attention_norm",
                "ffn_norm",
                "post_ffw_norm",
            )
        )
        self._gate = weights.linear(f"{block}ffn_gate", inner, width)
        self._up = weights.linear(f"{block}ffn_up", inner, width)
        self._down = weights.linear(f"{block}ffn_down", width, inner)

    def __call__(self, x: Array, step: Step, layer: int) -> Array:
        """Attention, then the feed-forward layer (GeGLU, arXiv:2002.05202)."""
        h = self.attention(rms_norm(x, self._before, self._epsilon), step, layer)
        x = x + rms_norm(h, self._after, self._epsilon)
        h = rms_norm(x, self._before_ffn, self._epsilon)
        h = self._down(gelu(self._gate(h)) * self._up(h))
        return x + rms_norm(h, self._after_ffn, self._epsilon)


class Architecture(Decoder):
    """The whole network."""

    blocks: Sequence[GemmaBlock]

    def __init__(self, settings: Settings, weights: Weights) -> None:
        super().__init__(settings, weights)
        self._heads = Heads.read(settings)
        self._width = settings.integer("embedding_length")
        self._cap = settings.number("final_logit_softcapping", 0.0)
        window = settings.integer("attention.sliding_window", 0) or None
        size = self._heads.size
        near_base = settings.number("rope.freq_base_swa", 10_000.0)
        near = Rotation(plain_frequencies(size, near_base), interleaved=False)
        far = rotation(settings, weights, size, interleaved=False)
        layers = settings.integer("block_count")
        slides = [window is not None and s for s in _pattern(settings, layers)]
        self.blocks = [
            GemmaBlock(
                settings,
                weights,
                f"blk.{layer}.",
                near if slides[layer] else far,
                window if slides[layer] else None,
            )
            for layer in range(layers)
        ]

    def embed(self, tokens: NDArray[np.int64]) -> Array:
        """Scaled up, as the same vectors also make the logits."""
        return super().embed(tokens) * np.float32(math.sqrt(self._width))

    def logits(self, hidden: Array) -> Array:
        """Squeezed softly between two bounds, if the file says so."""
        logits = super().logits(hidden)
        cap = np.float32(self._cap)
        return cap * np.tanh(logits / cap) if cap else logits

    def create_cache(
        self, length: int, types: tuple[DTypeLike, DTypeLike]
    ) -> KeyValueCache:
        """Keys and values of all layers; those out of a window stay, unseen."""
        heads = self._heads
        shape = len(self.blocks), heads.key_count, length, heads.size
        return KeyValueCache(shape, types)

    def move_keys(self, layer: int, keys: Array, delta: int) -> Array:
        """A layer with a window has another base."""
        return self.blocks[layer].attention.rotation.move(keys, delta)


def _scale(settings: Settings) -> float:
    heads = Heads.read(settings)
    if settings.integer("block_count") == LAYERS_OF_27B:
        return float((settings.integer("embedding_length") // heads.count) ** -0.5)
    return float(heads.size**-0.5)


def _pattern(settings: Settings, layers: int) -> list[bool]:
    """Which layers have a window: all but each n-th, or as the file lists them."""
    key = f"{settings.architecture}.attention.sliding_window_pattern"
    if isinstance(settings.metadata.get(key), list):
        return [bool(slides) for slides in settings.array(key)][:layers]
    every = settings.integer("attention.sliding_window_pattern", 6)
    return [every == 0 or layer % every < every - 1 for layer in range(layers)]
