"""The functions that networks are made of, on arrays whose last axis is the vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmcore.backends.reference.gguf_file import Array


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    mean = np.mean(np.square(x), axis=-1, keepdims=True)
    scaled: Array = x / np.sqrt(mean + np.float32(epsilon)) * weight
    return scaled


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    scaled: Array = centred / np.sqrt(variance + np.float32(epsilon)) * weight + bias
    return scaled


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``."""
    y: Array = x / (1 + np.exp(-x))
    return y


def gelu(x: Array) -> Array:
    """The tanh form of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    y: Array = 0.5 * x * (1 + np.tanh(inner))
    return y


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``."""
    y: Array = np.logaddexp(np.float32(0), x)
    return y


def softmax(x: Array) -> Array:
    """Shares that add up to 1; ``-inf`` gets none."""
    weights = np.exp(x - np.max(x, axis=-1, keepdims=True))
    shares: Array = weights / np.sum(weights, axis=-1, keepdims=True)
    return shares


def attend(
    queries: Array,
    keys: Array,
    values: Array,
    visible: NDArray[np.bool_],
    scale: float,
) -> Array:
    """
    Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) of one sequence.

    Args:
        queries: Shape (rows, heads, size). Neighbouring heads share a key head.

        keys: Shape (key heads, cells, size), as ``values``.

        visible: Whether a row sees a cell, shape (rows, cells).

        scale: Of the scores, usually ``1 / sqrt(size)``.

    Returns:
        Shape (rows, heads, size).
    """
    rows, heads, size = queries.shape
    key_heads, cells, _ = keys.shape
    grouped = queries.reshape(rows, key_heads, -1, size).transpose(1, 2, 0, 3)
    scores = grouped.reshape(key_heads, -1, size) @ keys.swapaxes(1, 2)
    scores = scores.reshape(key_heads, -1, rows, cells) * np.float32(scale)
    weights = softmax(np.where(visible, scores, np.float32(-np.inf)))
    mixed = weights.reshape(key_heads, -1, cells) @ values
    back = mixed.reshape(key_heads, -1, rows, size).transpose(2, 0, 1, 3)
    return back.reshape(rows, heads, size)
