"""
Logits as a distribution, and the ways to keep a part of it.

Those that keep a part take logits, shape ``(n,)``, float64, none of them NaN or
infinite, and return the indices of what is kept: ascending, and never none.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmcore.errors import DecodeError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

BLOCKS = 64
"""So many elements compete in each block when only the largest few are wanted."""


def best_token(logits: NDArray[np.float32]) -> int:
    """
    The index of the largest logit, of equals the lowest.

    Raises:
        DecodeError: A logit is NaN, or all of them are ``-inf``.
    """
    best = int(logits.argmax())  # the first of equals, and any NaN before them
    value = float(logits[best])
    if math.isnan(value):
        raise DecodeError(
            "the logits contain NaN: the model file is damaged or the engine "
            "cannot compute it on this device; try another file or gpu_layers=0"
        )
    if value == -math.inf:
        raise DecodeError(
            "no token can be sampled because every logit is -inf: let logit_bias, "
            "min_tokens or the logits processors allow at least one token"
        )
    return best


def possible(logits: NDArray[np.float32]) -> tuple[Indices, Floats]:
    """
    The tokens that are possible at all, and their logits.

    Args:
        logits: Shape ``(vocab_size,)``. Those that are ``-inf`` are impossible; if
            some are ``inf`` only they are possible, all the same.
    """
    if logits.max() == np.inf:
        tokens = np.flatnonzero(logits == np.inf)
        return tokens, np.zeros(tokens.size)
    if logits.min() > -np.inf:
        return np.arange(logits.size), logits.astype(np.float64)
    tokens = np.flatnonzero(logits > -np.inf)
    return tokens, logits[tokens].astype(np.float64)


# Large arrays are computed in place: fresh memory costs more than the arithmetic.


def log_softmax(logits: Floats) -> Floats:
    """Natural logarithms of the probabilities."""
    shifted: Floats = logits - logits.max()
    shifted -= math.log(np.exp(shifted).sum())
    return shifted


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """The probabilities, after the logits are divided by a temperature above 0."""
    weights: Floats = logits - logits.max()
    if temperature != 1:
        with np.errstate(over="ignore"):  # -inf is as good as far below the best
            weights /= temperature
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def largest(values: NDArray[np.floating], count: int) -> Indices:
    """Indices of the ``count`` largest values, ascending; of equals the lowest."""
    if count >= values.size:
        return np.arange(values.size)
    among = _candidates(values, count)
    rivals = values[among]
    threshold = np.partition(rivals, -count)[-count]
    keep = rivals > threshold
    equals = np.flatnonzero(rivals == threshold)
    keep[equals[: count - np.count_nonzero(keep)]] = True
    kept: Indices = among[keep]
    return kept


def _candidates(values: NDArray[np.floating], count: int) -> Indices:
    """
    Indices among which the ``count`` largest are: few of them, found quickly.

    The best of each column are different elements, so ``count`` elements at least
    reach the ``count``-th of these.
    """
    rows = min(BLOCKS, values.size // (4 * count))
    if rows < 2:
        return np.arange(values.size)
    columns = values.size // rows
    winners = values[: rows * columns].reshape(rows, columns).max(axis=0)
    return np.flatnonzero(values >= np.partition(winners, -count)[-count])


def top_p(logits: Floats, mass: float) -> Indices:
    """The most likely until they have this much probability."""
    return _reach(logits, softmax(logits), mass)


def typical(logits: Floats, mass: float) -> Indices:
    """Those of the most average surprise until they have this much probability."""
    ranks = log_softmax(logits)
    probabilities = np.exp(ranks)
    ranks -= (ranks * probabilities).sum()  # "@" would wake the threads of a BLAS
    np.abs(ranks, out=ranks)
    return _reach(np.negative(ranks, out=ranks), probabilities, mass)


def _reach(ranks: Floats, probabilities: Floats, mass: float) -> Indices:
    """The highest ranks that together have a probability of ``mass`` or more."""
    head = np.arange(ranks.size)
    for count in (256, 2048, 16384):  # sorting a whole vocabulary takes long
        few = largest(ranks, count)
        if probabilities[few].sum() >= mass:
            head = few
            break
    order = head[np.argsort(-ranks[head], kind="stable")]
    reached = probabilities[order].cumsum()
    return np.sort(order[: int(reached.searchsorted(mass)) + 1])


def min_p(logits: Floats, share: float) -> Indices:
    """Those with at least this share of the best one's probability."""
    return np.flatnonzero(logits >= logits.max() + math.log(share))


def exclude_top_choices(logits: Floats, threshold: float) -> Indices:
    """All but the likely ones, of which only the least likely one stays."""
    probabilities = softmax(logits)
    likely = np.flatnonzero(probabilities >= threshold)
    keep = np.ones(logits.size, np.bool_)
    if likely.size > 1:
        keep[likely] = False
        keep[likely[probabilities[likely].argmin()]] = True
    return np.flatnonzero(keep)


def unsurprising(logits: Floats, bits: float) -> Indices:
    """Those with at most this surprise, or else the most likely one."""
    kept = np.flatnonzero(log_softmax(logits) >= -bits * math.log(2))
    return kept if kept.size else np.array([logits.argmax()])
