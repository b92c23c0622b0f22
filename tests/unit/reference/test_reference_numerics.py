"""The functions of the networks against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmcore.backends.reference import numerics
from llmcore.backends.reference.rotation import Rotation, plain_frequencies

RANDOM = np.random.default_rng(0)


def draw(*shape: int) -> np.typing.NDArray[np.float32]:
    """Random values."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_attention() -> None:
    """Each row mixes the values that it sees, by the soft maximum of its scores."""
    queries, keys, values = draw(3, 4, 8), draw(2, 5, 8), draw(2, 5, 8)
    visible = np.tril(np.ones((3, 5), bool), 2)
    found = numerics.attend(queries, keys, values, visible, 0.5)

    for row in range(3):
        for head in range(4):
            shared = head // 2
            seen = [cell for cell in range(5) if visible[row, cell]]
            weights = [
                math.exp(0.5 * float(queries[row, head] @ keys[shared, cell]))
                for cell in seen
            ]
            mixed = sum(
                weight * values[shared, cell]
                for weight, cell in zip(weights, seen, strict=True)
            )
            np.testing.assert_allclose(
                found[row, head], mixed / sum(weights), atol=1e-5
            )


def test_functions() -> None:
    """Norms and activations follow their formulas."""
    x, weight, bias = draw(8), draw(8), draw(8)
    mean, square = sum(x) / 8, sum(v * v for v in x) / 8
    variance = sum((v - mean) ** 2 for v in x) / 8
    close = {"atol": 1e-6, "rtol": 1e-5}

    np.testing.assert_allclose(
        numerics.rms_norm(x, weight, 0.1), x / np.sqrt(square + 0.1) * weight, **close
    )
    np.testing.assert_allclose(
        numerics.layer_norm(x, weight, bias, 0.1),
        (x - mean) / np.sqrt(variance + 0.1) * weight + bias,
        **close,
    )
    np.testing.assert_allclose(
        numerics.silu(x), [v / (1 + math.exp(-v)) for v in x], **close
    )
    np.testing.assert_allclose(
        numerics.softplus(x), [math.log1p(math.exp(v)) for v in x], **close
    )
    # The tanh form is within 1e-3 of the exact one.
    exact = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(numerics.gelu(x), exact, atol=1e-3)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_is_relative(interleaved: bool) -> None:
    """A product of two rotated vectors depends only on how far apart they are."""
    turn = Rotation(plain_frequencies(8, 10_000.0), interleaved=interleaved)
    query, key = draw(1, 1, 8), draw(1, 1, 8)

    def product(at: int, to: int) -> float:
        left, right = turn(query, np.array([at])), turn(key, np.array([to]))
        return float((left * right).sum())

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-5)
    assert product(5, 2) != pytest.approx(product(5, 4), abs=1e-2)


@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_move(scale: float) -> None:
    """A key that is moved is what it would have been there, scaled once."""
    turn = Rotation(plain_frequencies(8, 100.0), interleaved=True, scale=scale)
    key = draw(1, 1, 8)
    there = turn(key, np.array([9]))

    np.testing.assert_allclose(turn.move(turn(key, np.array([2])), 7), there, atol=1e-5)


def test_pairs() -> None:
    """Neighbours are turned together, or values half a head apart."""
    one = np.zeros((1, 1, 4), np.float32)
    one[..., 0] = 1
    quarter = np.array([math.pi / 2, 0.0])
    neighbour = Rotation(quarter, interleaved=True)(one, np.array([1]))
    half = Rotation(quarter, interleaved=False)(one, np.array([1]))

    np.testing.assert_allclose(neighbour[0, 0], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(half[0, 0], [0, 0, 1, 0], atol=1e-6)
