"""
Choosing the next token with NumPy: what `SamplingParams` means, on every backend.

A native sampler may stand in for `Sampler` only where it draws from the same
distribution.
"""

from __future__ import annotations

import secrets
from collections import deque

import numpy as np
from numpy.typing import NDArray

from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

Tokens = NDArray[np.intp]


class Sampler:
    """
    Chooses the tokens of one sequence; lives as long as one generation.

    Holds the random numbers and the tokens that the penalties look at. Not for
    several threads at once.

    Args:
        params: How to choose.

        seed: Of the random numbers, 0 to 2**32-1; ``None`` means ``params.seed``, or
            a fresh one if that is ``None`` too.
    """

    def __init__(self, params: SamplingParams, seed: int | None = None) -> None:
        if seed is None:
            seed = params.seed
        self._params = params
        self._seed = secrets.randbits(32) if seed is None else seed
        self._random = np.random.Generator(np.random.PCG64(self._seed))
        self._window = deque[int](
            maxlen=params.penalty_last_n if params.has_penalties else 0
        )
        self._bias_tokens = np.array(list(params.logit_bias), np.intp)
        self._bias = np.array(list(params.logit_bias.values()), np.float64)

    @property
    def seed(self) -> int:
        """The seed really used: the same one and the same logits repeat a result."""
        return self._seed

    def accept(self, token: int) -> None:
        """Count a token that `sample` did not return (prompt, forced)."""
        self._window.append(token)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """
        `choose` a token and count it, as `accept` does.

        Args:
            logits: Shape ``(vocab_size,)``; not changed and not kept.

        Raises:
            DecodeError: A logit is NaN, or all of them are ``-inf``.

            ValueError: ``logit_bias`` names a token outside the vocabulary.
        """
        token = self.choose(logits)
        self.accept(token)
        return token

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token; arguments and errors as for `sample`, but not counted."""
        return self._choose(self._adjust(logits))

    def _adjust(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add the bias and penalise repetition, on a copy if there is any."""
        if not self._bias.size and not self._window:
            return logits
        logits = logits.copy()
        # A huge or infinite bias is meant; NaN is reported when the best is looked up.
        with np.errstate(over="ignore", invalid="ignore"):
            if self._bias.size:
                self._add_bias(logits)
            if self._window:
                self._penalise(logits)
        return logits

    def _add_bias(self, logits: NDArray[np.float32]) -> None:
        last = self._bias_tokens.max()
        if last >= logits.size:
            raise ValueError(
                f"logit_bias[{last}] is outside the vocabulary: "
                f"the model has tokens 0 to {logits.size - 1}"
            )
        logits[self._bias_tokens] += self._bias

    def _penalise(self, logits: NDArray[np.float32]) -> None:
        params = self._params
        tokens, counts = np.unique(
            np.fromiter(self._window, np.intp), return_counts=True
        )
        values = logits[tokens].astype(np.float64)
        scale = params.repeat_penalty
        values = np.where(values > 0, values / scale, values * scale)
        values -= counts * params.frequency_penalty + params.presence_penalty
        logits[tokens] = values

    def _choose(self, logits: NDArray[np.float32]) -> int:
        best = int(logits.argmax())  # the first of equals, and any NaN before them
        if np.isnan(logits[best]):
            raise DecodeError(
                "the logits contain NaN: the model file is damaged or the engine "
                "cannot compute it on this device; try another file or gpu_layers=0"
            )
        if logits[best] == -np.inf:
            raise DecodeError(
                "no token can be sampled because every logit is -inf: "
                "let logit_bias allow at least one token"
            )
        if self._params.temperature == 0:
            return best
        if logits[best] == np.inf:  # certain: only such tokens are left, as equals
            logits = np.where(logits == np.inf, np.float32(0), np.float32(-np.inf))
        kept = self._keep(logits)
        return int(kept[self._draw(logits[kept])])

    def _keep(self, logits: NDArray[np.float32]) -> Tokens:
        """The tokens that pass ``top_k``, then ``top_p``, then ``min_p``, in order."""
        params = self._params
        kept = _largest(logits, params.top_k or logits.size)
        if params.top_p == 1 and params.min_p == 0:
            return kept
        probabilities = _softmax(logits[kept].astype(np.float64))
        if params.top_p < 1:
            reached = np.sort(probabilities)[::-1].cumsum()
            count = int(reached.searchsorted(params.top_p)) + 1
            nucleus = _largest(probabilities, count)
            kept, probabilities = kept[nucleus], probabilities[nucleus]
        passing = np.flatnonzero(probabilities >= params.min_p * probabilities.max())
        return kept.take(passing)

    def _draw(self, logits: NDArray[np.float32]) -> int:
        scaled = logits.astype(np.float64) - logits.max()
        with np.errstate(over="ignore"):
            scaled /= self._params.temperature
        cumulative = _softmax(scaled).cumsum()
        # "right" steps over tokens of probability 0, also at the very beginning.
        point = self._random.random() * cumulative[-1]
        return int(cumulative.searchsorted(point, side="right"))


def _largest(values: NDArray[np.floating], count: int) -> Tokens:
    """Indices of the ``count`` largest values, ascending; of equals the lowest."""
    if count >= values.size:
        return np.arange(values.size)
    threshold = np.partition(values, -count)[-count]
    keep = values > threshold
    equals = np.flatnonzero(values == threshold)
    keep[equals[: count - np.count_nonzero(keep)]] = True
    return np.flatnonzero(keep)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
