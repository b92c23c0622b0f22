"""Attention of one layer, in the forms that Llama and Gemma have."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmcore.backends.reference.gguf_file import (
    Array,
    InvalidModelError,
    Settings,
    Weights,
)
from llmcore.backends.reference.network import Step
from llmcore.backends.reference.numerics import attend, rms_norm
from llmcore.backends.reference.rotation import Rotation


@frozen(kw_only=True)
class Heads:
    """How attention is divided: ``count`` heads share ``key_count`` heads of keys."""

    count: int
    key_count: int
    size: int

    @classmethod
    def read(cls, settings: Settings) -> Heads:
        """The same numbers for all layers."""
        count = settings.integer("attention.head_count")
        key_count = settings.integer("attention.head_count_kv", count)
        if not count or not key_count or count % key_count:
            raise InvalidModelError(f"{count} heads cannot share {key_count} key heads")
        size = settings.integer("embedding_length") // count
        sizes = {
            settings.integer(f"attention.{name}_length", size)
            for name in ("key", "value")
        }
        if len(sizes) > 1:
            raise InvalidModelError("its keys and values differ in length")
        return cls(count=count, key_count=key_count, size=sizes.pop())


class Attention:
    """
    Attention of a layer to all positions before, or to the last ``window`` of them.

    Args:
        block: Where its tensors are, such as ``"blk.0."``.

        scale: Of the scores; by default ``1 / sqrt(size)``.

        norm_epsilon: Queries and keys are normalised head by head, with this epsilon.

        window: Positions that are seen, its own included; None for all.
    """

    def __init__(
        self,
        settings: Settings,
        weights: Weights,
        block: str,
        rotation: Rotation,
        *,
        scale: float | None = None,
        norm_epsilon: float | None = None,
        window: int | None = None,
    ) -> None:
        self._heads = heads = Heads.read(settings)
        width, inner = settings.integer("embedding_length"), heads.count * heads.size
        narrow = heads.key_count * heads.size
        self._query = weights.linear(f"{block}attn_q", inner, width)
        self._key = weights.linear(f"{block}attn_k", narrow, width)
        self._value = weights.linear(f"{block}attn_v", narrow, width)
        self._output = weights.linear(f"{block}attn_output", width, inner)
        self._norm_epsilon = norm_epsilon
        if norm_epsilon is not None:
            self._query_norm = weights.take(f"{block}attn_q_norm.weight", heads.size)
            self._key_norm = weights.take(f"{block}attn_k_norm.weight", heads.size)
        self._scale = heads.size**-0.5 if scale is None else scale
        self._window = window
        self.rotation = rotation

    def __call__(self, x: Array, step: Step, layer: int) -> Array:
        """Shapes (rows, embedding); writes the keys and values of the rows."""
        size = self._heads.size
        queries = self._query(x).reshape(len(x), -1, size)
        keys = self._key(x).reshape(len(x), -1, size)
        values = self._value(x).reshape(len(x), -1, size)
        if self._norm_epsilon is not None:
            queries = rms_norm(queries, self._query_norm, self._norm_epsilon)
            keys = rms_norm(keys, self._key_norm, self._norm_epsilon)
        queries = self.rotation(queries, step.positions)
        keys = self.rotation(keys, step.positions)
        mixed = np.empty_like(queries)
        for rows, cache in step.parts:
            cache.write(layer, keys[rows], values[rows])
            old_keys, old_values, cells = cache.read(layer)
            distance = step.positions[rows][:, None] - cells
            visible = distance >= 0
            if self._window is not None:
                visible &= distance < self._window
            mixed[rows] = attend(
                queries[rows], old_keys, old_values, visible, self._scale
            )
        return self._output(mixed.reshape(len(x), -1))
