"""Rotary position embedding, with the variants that GGUF files ask for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmcore.backends.reference.gguf_file import (
    Array,
    InvalidModelError,
    Settings,
    Weights,
)

Frequencies = NDArray[np.float64]


class Rotation:
    """
    Turns pairs of values by an angle that grows with the position (RoPE, Su et al.
    2021, arXiv:2104.09864).

    Args:
        frequencies: Angle per position of each pair, in radians, shape (pairs,).

        interleaved: A pair is two neighbours, as in "llama"; else the two values half
            a head apart, as in NeoX and Gemma.

        scale: Of what is turned (YaRN).
    """

    def __init__(
        self, frequencies: Frequencies, *, interleaved: bool, scale: float = 1.0
    ) -> None:
        self._frequencies = frequencies
        self._interleaved = interleaved
        self._scale = scale

    def __call__(self, x: Array, positions: NDArray[np.int64]) -> Array:
        """Turn vectors of shape (rows, heads, size), each to its own position."""
        return self._turn(x, positions[:, None, None], self._scale)

    def move(self, keys: Array, delta: int) -> Array:
        """Turn keys of any shape on by so many positions; they are scaled already."""
        return self._turn(keys, np.int64(delta), 1.0)

    def _turn(
        self, x: Array, positions: NDArray[np.int64] | np.int64, scale: float
    ) -> Array:
        angles = positions * self._frequencies
        cos = (np.cos(angles) * scale).astype(np.float32)
        sin = (np.sin(angles) * scale).astype(np.float32)
        pairs = 2 * len(self._frequencies)
        turned = x.copy()
        if self._interleaved:
            first, second = slice(0, pairs, 2), slice(1, pairs, 2)
        else:
            first, second = slice(0, pairs // 2), slice(pairs // 2, pairs)
        turned[..., first] = x[..., first] * cos - x[..., second] * sin
        turned[..., second] = x[..., first] * sin + x[..., second] * cos
        return turned


def plain_frequencies(size: int, base: float) -> Frequencies:
    """The original ones: ``base ** (-2 i / size)`` for pair number i."""
    exponents = -np.arange(0, size, 2) / size
    frequencies: Frequencies = np.power(base, exponents)
    return frequencies


def rotation(
    settings: Settings, weights: Weights, size: int, *, interleaved: bool
) -> Rotation:
    """
    The rotation that a file asks for.

    It scales positions down ("linear"), or only those of slow pairs ("yarn"), or each
    pair by a factor of its own (the tensor of Llama 3).

    Args:
        size: Values of a head that are turned.

    Raises:
        InvalidModelError: It is of another kind.
    """
    if size % 2:
        raise InvalidModelError(f"heads of {size} values have no pairs to turn")
    kind = settings.choice("rope.scaling.type", "linear")
    frequencies = plain_frequencies(size, settings.number("rope.freq_base", 10_000.0))
    factors = weights.find("rope_freqs.weight", size // 2)
    if factors is not None:
        frequencies = frequencies / factors
    old_name = settings.number("rope.scale_linear", 1.0)
    factor = settings.number("rope.scaling.factor", old_name) or 1.0
    scale = settings.number("rope.scaling.attn_factor", 1.0)
    if kind == "linear":
        frequencies = frequencies / factor
    elif kind == "yarn":
        frequencies = _yarn(settings, frequencies, factor, size)
        scale *= 1 + 0.1 * math.log(max(factor, 1.0))
    elif kind != "none":
        raise InvalidModelError(f"rope.scaling.type is {kind!r}, which is not known")
    return Rotation(frequencies, interleaved=interleaved, scale=scale)


def _yarn(
    settings: Settings, frequencies: Frequencies, factor: float, size: int
) -> Frequencies:
    """
    YaRN (Peng et al. 2023, arXiv:2309.00071): pairs that turn less than ``slow`` times
    within the original context are scaled, those that turn more than ``fast`` are not.
    """
    base = settings.number("rope.freq_base", 10_000.0)
    length = settings.integer(
        "rope.scaling.original_context_length", settings.integer("context_length")
    )

    def pair(turns: float) -> float:
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    fast = settings.number("rope.scaling.yarn_beta_fast", 32.0)
    slow = settings.number("rope.scaling.yarn_beta_slow", 1.0)
    low, high = max(0, math.floor(pair(fast))), min(size - 1, math.ceil(pair(slow)))
    ramp = (np.arange(size // 2) - low) / max(0.001, high - low)
    scaled = np.clip(ramp, 0, 1)
    mixed: Frequencies = frequencies * (1 - scaled) + frequencies / factor * scaled
    return mixed
