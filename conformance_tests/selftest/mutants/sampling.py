"""Mutants of sampling.md: core's sampler, and the native one of the null backend."""

from __future__ import annotations

import numpy as np
import pytest

from llmcore.backends.null.sampler import NullSampler
from llmcore.engine import distribution
from llmcore.engine.penalties import Dry, Repetition
from llmcore.engine.sampling import Sampler
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="sample.greedy-ties")
def takes_the_last_of_equals(patch: Patch) -> None:
    """Of equal tokens the one with the highest number is chosen."""
    right = distribution.best_token

    def best_token(logits):
        right(logits)
        return int(logits.size - 1 - logits[::-1].argmax())

    patch.setattr(distribution, "best_token", best_token)


@mutant(kills="sample.temperature")
def is_never_warm(patch: Patch) -> None:
    """A temperature above 1 is 1."""
    right = distribution.softmax

    def softmax(logits, temperature=1.0):
        return right(logits, min(temperature, 1.0))

    patch.setattr(distribution, "softmax", softmax)


@mutant(kills="sample.top-k")
def keeps_one_more(patch: Patch) -> None:
    """`top_k` keeps one token too many."""
    right = distribution.largest

    def largest(values, count):
        own = values.dtype == np.float32  # logits, and not some ranking
        return right(values, count + 1 if own and count < 40 else count)

    patch.setattr(distribution, "largest", largest)


@mutant(kills="sample.top-p")
def stops_before_it_is_reached(patch: Patch) -> None:
    """The token that reaches `top_p` is left out."""
    right = distribution.top_p

    def top_p(logits, mass):
        kept = right(logits, mass)
        if kept.size < 2 or mass == 0.95:
            return kept
        return np.delete(kept, logits[kept].argmin())

    patch.setattr(distribution, "top_p", top_p)


@mutant(kills="sample.min-p")
def compares_with_certainty(patch: Patch) -> None:
    """`min_p` is a probability, not a share of the best one's."""

    def min_p(logits, share):
        probabilities = distribution.softmax(logits)
        return np.flatnonzero(probabilities >= min(share, probabilities.max()))

    patch.setattr(distribution, "min_p", min_p)


@mutant(kills="sample.typical")
def the_likely_is_typical(patch: Patch) -> None:
    """`typical_p` is `top_p`."""
    patch.setattr(distribution, "typical", distribution.top_p)


@mutant(kills="sample.penalties")
def divides_what_is_negative(patch: Patch) -> None:
    """The repeat penalty makes a negative logit larger."""
    right = Repetition.penalise

    def penalise(self, logits):
        before = logits.copy()
        right(self, logits)
        if self._params.repeat_penalty != 1:
            np.divide(before, self._params.repeat_penalty, out=logits, where=before < 0)

    patch.setattr(Repetition, "penalise", penalise)


@mutant(kills="sample.penalties")
def never_forgets(patch: Patch) -> None:
    """A token that left the window is still penalised."""

    def accept(self, token):
        self._counts[token] += 1

    patch.setattr(Repetition, "accept", accept)


@mutant(kills="sample.dry")
def counts_one_too_many(patch: Patch) -> None:
    """A repetition is one token longer than it is."""
    right = Dry.repeated
    patch.setattr(
        Dry, "repeated", lambda self: {t: n + 1 for t, n in right(self).items()}
    )


@mutant(kills="sample.dry")
def nothing_breaks_it(patch: Patch) -> None:
    """Breakers are tokens like all others."""
    patch.setattr(Dry, "_breaks", lambda self, token: False)


@mutant(kills="sample.xtc")
def excludes_them_all(patch: Patch) -> None:
    """Even the least likely of the top choices goes."""
    right = distribution.exclude_top_choices

    def exclude_top_choices(logits, threshold):
        kept = right(logits, threshold)
        likely = distribution.softmax(logits)[kept] >= threshold
        return kept if likely.all() or kept.size == logits.size else kept[~likely]

    patch.setattr(distribution, "exclude_top_choices", exclude_top_choices)


@mutant(kills="sample.mirostat")
def learns_nothing(patch: Patch) -> None:
    """`mu` starts anew with each token."""
    right = Sampler._choose

    def choose(self, logits):
        self._mu = 2 * self._params.mirostat_tau
        return right(self, logits)

    patch.setattr(Sampler, "_choose", choose)


@mutant(kills="sample.bias")
def has_limits(patch: Patch) -> None:
    """A large negative bias counts for little."""
    right = Sampler.__init__

    def init(self, *args, **options):
        right(self, *args, **options)
        self._bias[np.isfinite(self._bias) & (self._bias < -1e3)] = -1

    patch.setattr(Sampler, "__init__", init)


@mutant(kills="sample.seed")
def always_the_same_dice(patch: Patch) -> None:
    """Who has no seed has the seed 0."""
    right = Sampler.__init__

    def init(self, params, seed=None, **options):
        right(self, params, seed or params.seed or 0, **options)

    patch.setattr(Sampler, "__init__", init)


@mutant(kills="sample.unseeded")
def the_engine_keeps_everything(patch: Patch) -> None:
    """The native sampler cuts nothing off."""
    patch.setattr(NullSampler, "_filter", lambda self, ranked, values: ranked)
