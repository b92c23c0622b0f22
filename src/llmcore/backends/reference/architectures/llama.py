"""
Llama (Touvron et al. 2023, arXiv:2302.13971): rotated, grouped-query attention and a
gated feed-forward layer, each behind a normalisation. Also Mistral, SmolLM2 and others.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import DTypeLike

from llmcore.backends.reference.attention import Attention, Heads
from llmcore.backends.reference.gguf_file import Array, Settings, Weights
from llmcore.backends.reference.key_values import KeyValueCache
from llmcore.backends.reference.network import Block, Decoder, Step
from llmcore.backends.reference.numerics import rms_norm, silu
from llmcore.backends.reference.rotation import Rotation, rotation


class LlamaBlock(Block):
    """One layer."""

    def __init__(
        self, settings: Settings, weights: Weights, block: str, turn: Rotation
    ) -> None:
        width = settings.integer("embedding_length")
        inner = settings.integer("feed_forward_length")
        self._epsilon = settings.number("attention.layer_norm_rms_epsilon")
        self._attention_norm = weights.take(f"{block}attn_norm.weight", width)
        self.attention = Attention(settings, weights, block, turn)
        self._norm = weights.take(f"{block}ffn_norm.weight", width)
        self._gate = weights.linear(f"{block}ffn_gate", inner, width)
        self._up = weights.linear(f"{block}ffn_up", inner, width)
        self._down = weights.linear(f"{block}ffn_down", width, inner)

    def __call__(self, x: Array, step: Step, layer: int) -> Array:
        """Attention, then the feed-forward layer (SwiGLU, arXiv:2002.05202)."""
        h = rms_norm(x, self._attention_norm, self._epsilon)
        x = x + self.attention(h, step, layer)
        h = rms_norm(x, self._norm, self._epsilon)
        return x + self._down(silu(self._gate(h)) * self._up(h))


class Architecture(Decoder):
    """The whole network."""

    blocks: Sequence[LlamaBlock]

    def __init__(self, settings: Settings, weights: Weights) -> None:
        super().__init__(settings, weights)
        self._heads = Heads.read(settings)
        turn = rotation(settings, weights, self._heads.size, interleaved=True)
        self.blocks = [
            LlamaBlock(settings, weights, f"blk.{layer}.", turn)
            for layer in range(settings.integer("block_count"))
        ]

    def create_cache(
        self, length: int, types: tuple[DTypeLike, DTypeLike]
    ) -> KeyValueCache:
        """Keys and values of all layers."""
        heads = self._heads
        shape = len(self.blocks), heads.key_count, length, heads.size
        return KeyValueCache(shape, types)

    def move_keys(self, layer: int, keys: Array, delta: int) -> Array:
        """Each layer turns alike."""
        return self.blocks[layer].attention.rotation.move(keys, delta)
