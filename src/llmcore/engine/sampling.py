"""
Choosing the next token with NumPy: what `SamplingParams` means, on every backend.

A native sampler may stand in for `Sampler` only where it draws from the same
distribution.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection
from copy import copy, deepcopy

import numpy as np
from numpy.typing import NDArray

from llmcore.engine import distribution
from llmcore.engine.distribution import Floats, Indices
from llmcore.engine.penalties import Dry, Repetition
from llmcore.values import SamplingParams

Logits = NDArray[np.float32]


class Sampler:
    """
    Chooses the tokens of one sequence; lives as long as one generation.

    Holds the random numbers, the tokens that the penalties look at, and where Mirostat
    has got to. Not for several threads at once.

    Args:
        params: How to choose.

        seed: Of the random numbers, 0 to 2**32-1; ``None`` means ``params.seed``, or
            a fresh one if that is ``None`` too.

        piece: Text of a token, asked at most once for each, to find the
            ``dry_breakers``; without it there are none.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int | None = None,
        *,
        piece: Callable[[int], bytes] | None = None,
    ) -> None:
        if seed is None:
            seed = params.seed
        self._params = params
        self._seed = secrets.randbits(32) if seed is None else seed
        self._random = np.random.Generator(np.random.PCG64(self._seed))
        self._mu = 2 * params.mirostat_tau
        self._penalties: list[Repetition | Dry] = []
        if params.has_penalties:
            self._penalties.append(Repetition(params))
        if params.has_dry:
            self._penalties.append(Dry(params, piece))
        self._bias_tokens = np.array(list(params.logit_bias), np.intp)
        self._bias = np.array(list(params.logit_bias.values()), np.float64)

    @property
    def seed(self) -> int:
        """The seed really used: the same one and the same logits repeat a result."""
        return self._seed

    def fork(self) -> Sampler:
        """An independent copy, which goes on as this one would."""
        twin = copy(self)
        twin._penalties = [penalty.fork() for penalty in self._penalties]
        twin._random = deepcopy(self._random)
        return twin

    def accept(self, token: int) -> None:
        """Count a token that `sample` did not return (prompt, forced)."""
        for penalty in self._penalties:
            penalty.accept(token)

    def sample(self, logits: Logits, banned: Collection[int] = ()) -> int:
        """
        `choose` a token and count it, as `accept` does.

        Args:
            logits: Shape ``(vocab_size,)``; not changed and not kept.

            banned: Tokens that must not be chosen this time.

        Raises:
            DecodeError: A logit is NaN, or nothing is left to choose.

            ValueError: ``logit_bias`` names a token outside the vocabulary.
        """
        token = self.choose(logits, banned)
        self.accept(token)
        return token

    def choose(self, logits: Logits, banned: Collection[int] = ()) -> int:
        """
        The next token; arguments and errors as for `sample`, but not counted.

        It uses up random numbers, and Mirostat adapts to it.
        """
        return self._choose(self._adjust(logits, banned))

    def probabilities(self, logits: Logits, banned: Collection[int] = ()) -> Floats:
        """
        How likely `choose` would return each token; changes nothing.

        Returns:
            Shape ``(vocab_size,)``; the sum is 1.
        """
        logits = self._adjust(logits, banned)
        result = np.zeros(logits.size)
        if self._params.temperature == 0:
            result[distribution.best_token(logits)] = 1
            return result
        chance = self._params.xtc_probability
        for share, exclude in ((1 - chance, False), (chance, True)):
            tokens, probabilities = self._distribution(logits, exclude)
            result[tokens] += share * probabilities
        return result

    def _adjust(self, logits: Logits, banned: Collection[int]) -> Logits:
        """Bias, penalties and bans, on a copy if there are any."""
        if not (self._bias.size or self._penalties or banned):
            return logits
        logits = logits.copy()
        # A huge or infinite bias is meant; NaN is reported when the best is looked up.
        with np.errstate(over="ignore", invalid="ignore"):
            if self._bias.size:
                self._add_bias(logits)
            for penalty in self._penalties:
                penalty.penalise(logits)
        for token in banned:
            if token < logits.size:
                logits[token] = -np.inf
        return logits

    def _add_bias(self, logits: Logits) -> None:
        last = self._bias_tokens.max()
        if last >= logits.size:
            raise ValueError(
                f"logit_bias[{last}] is outside the vocabulary: "
                f"the model has tokens 0 to {logits.size - 1}"
            )
        logits[self._bias_tokens] += self._bias

    def _choose(self, logits: Logits) -> int:
        params = self._params
        if params.temperature == 0:
            return distribution.best_token(logits)
        chance = 0 if params.mirostat_tau else params.xtc_probability
        exclude = chance > 0 and self._random.random() < chance
        tokens, probabilities = self._distribution(logits, exclude)
        cumulative = probabilities.cumsum()
        # "right" steps over tokens of probability 0, also at the very beginning.
        point = self._random.random() * cumulative[-1]
        index = int(cumulative.searchsorted(point, side="right"))
        if params.mirostat_tau:
            surprise = -math.log2(probabilities[index])
            self._mu -= params.mirostat_eta * (surprise - params.mirostat_tau)
        return int(tokens[index])

    def _distribution(self, logits: Logits, exclude: bool) -> tuple[Indices, Floats]:
        """The tokens that are left, ascending, and their probabilities."""
        distribution.best_token(logits)  # raises if there is none
        if self._params.mirostat_tau:
            return self._unsurprising(logits)
        tokens, values = self._truncated(logits)
        if exclude:
            threshold = self._params.xtc_threshold
            kept = distribution.exclude_top_choices(values, threshold)
            tokens, values = tokens[kept], values[kept]
        return tokens, distribution.softmax(values, self._params.temperature)

    def _truncated(self, logits: Logits) -> tuple[Indices, Floats]:
        """The tokens that pass ``top_k`` to ``min_p``, and their logits."""
        params = self._params
        best = distribution.largest(logits, params.top_k or logits.size)
        tokens, values = distribution.possible(logits[best])
        tokens = best[tokens]
        for step, limit, off in (
            (distribution.typical, params.typical_p, 1),
            (distribution.top_p, params.top_p, 1),
            (distribution.min_p, params.min_p, 0),
        ):
            if limit != off:
                kept = step(values, limit)
                tokens, values = tokens[kept], values[kept]
        return tokens, values

    def _unsurprising(self, logits: Logits) -> tuple[Indices, Floats]:
        """What Mirostat keeps."""
        tokens, values = distribution.possible(logits)
        with np.errstate(over="ignore"):  # -inf is as good as far below the best
            values = (values - values.max()) / self._params.temperature
        kept = distribution.unsurprising(values, self._mu)
        return tokens[kept], distribution.softmax(values[kept])
