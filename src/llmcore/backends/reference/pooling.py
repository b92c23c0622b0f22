"""How the vectors of a text become one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf import PoolingType

from llmcore.backends.reference.gguf_file import Array, Settings

Pooling = Callable[[Array], Array]
"""From shape (rows, embedding), at least one row, to a new array (embedding,)."""


def _mean(vectors: Array) -> Array:
    mean: Array = np.mean(vectors, axis=0)
    return mean


def _first(vectors: Array) -> Array:
    first: Array = vectors[0].copy()
    return first


def _last(vectors: Array) -> Array:
    last: Array = vectors[-1].copy()
    return last


def pooling(settings: Settings) -> Pooling | None:
    """The model's way, or the last token's vector; None if it makes no vector."""
    kinds: dict[int, Pooling] = {
        PoolingType.NONE: _last,
        PoolingType.MEAN: _mean,
        PoolingType.CLS: _first,
        PoolingType.LAST: _last,
    }
    return kinds.get(settings.integer("pooling_type", PoolingType.NONE))
