"""Each step of `SamplingParams`, against a slow and simple account of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.engine.sampling import Sampler
from llmcore.values import SamplingParams

Shares = dict[int, float]

# Few different values, so that equal logits are common; and limits that no sum of the
# probabilities of a few equal logits hits, so that rounding does not matter.
VALUES = [-math.inf, -30.0, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0, 50.0]
vocabularies = st.lists(st.sampled_from(VALUES), min_size=1, max_size=9).filter(
    lambda values: max(values) > -math.inf
)
masses = st.sampled_from([1e-9, 0.137, 0.313, 0.5171, 0.8713, 0.99991, 1.0])
parameters = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([1e-300, 0.3, 1.0, 1.7, 100.0]),
        "top_k": st.integers(0, 12),
        "typical_p": masses,
        "top_p": masses,
        "min_p": st.sampled_from([0.0, 0.05, 0.21, 0.43, 1.0]),
        "xtc_probability": st.sampled_from([0.0, 0.25, 1.0]),
        "xtc_threshold": st.sampled_from([1e-9, 0.03, 0.107, 0.243, 0.9]),
        "mirostat_tau": st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.77, 1.31, 2.9]),
    }
)


def shares(
    values: list[float], tokens: Iterable[int], temperature: float = 1.0
) -> Shares:
    """Softmax over some tokens."""
    tokens = list(tokens)
    best = max(values[token] for token in tokens)
    weights = {t: math.exp((values[t] - best) / temperature) for t in tokens}
    total = math.fsum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def until(order: list[int], probability: Shares, mass: float) -> list[int]:
    """The first ones that reach a probability."""
    taken: list[int] = []
    for token in order:
        taken.append(token)
        if math.fsum(probability[t] for t in taken) >= mass:
            break
    return taken


def after_typical(values: list[float], kept: list[int], mass: float) -> list[int]:
    p = shares(values, kept)
    entropy = -math.fsum(p[t] * math.log(p[t]) for t in kept if p[t] > 0)
    best = max(values[t] for t in kept)
    norm = math.log(math.fsum(math.exp(values[t] - best) for t in kept)) + best
    order = sorted(kept, key=lambda t: (abs(norm - values[t] - entropy), t))
    taken = until(order, p, mass)
    return [t for t in kept if t in taken]


def without_top_choices(
    values: list[float], kept: list[int], threshold: float
) -> list[int]:
    p = shares(values, kept)
    likely = [t for t in kept if p[t] >= threshold]
    if len(likely) < 2:
        return kept
    stays = min(likely, key=lambda t: (p[t], t))
    return [t for t in kept if t not in likely or t == stays]


def account(values: list[float], params: SamplingParams, exclude: bool) -> Shares:
    """What is drawn, and how likely, by the words of `SamplingParams`."""
    kept = [t for t in range(len(values)) if values[t] > -math.inf]
    kept.sort(key=lambda t: (-values[t], t))
    heat = params.temperature
    if params.mirostat_tau:
        p = shares(values, kept, heat)
        low = [t for t in kept if p[t] and -math.log2(p[t]) <= 2 * params.mirostat_tau]
        return shares(values, low or kept[:1], heat)
    kept = kept[: params.top_k or None]
    if params.typical_p < 1:
        kept = after_typical(values, kept, params.typical_p)
    if params.top_p < 1:
        kept = until(kept, shares(values, kept), params.top_p)
    p = shares(values, kept)
    kept = [t for t in kept if p[t] >= params.min_p * p[kept[0]]]
    if exclude:
        kept = without_top_choices(values, kept, params.xtc_threshold)
    return shares(values, kept, heat)


def logits(values: Iterable[float]) -> Any:
    return np.array(list(values), np.float32)


def drawing(**params: Any) -> Sampler:
    """A sampler that draws from the whole distribution unless it is told otherwise."""
    everything = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return Sampler(SamplingParams(**everything | params), 1)


def from_probabilities(*values: float) -> Any:
    return logits(np.log(values))


def kept(values: Any, **params: Any) -> list[int]:
    return np.flatnonzero(drawing(**params).probabilities(values)).tolist()


class TestAccount:
    @given(vocabularies, parameters)
    def test_probabilities(self, values: list[float], fields: dict[str, Any]) -> None:
        """All steps together give the distribution that the words describe."""
        params = SamplingParams(**fields)
        chance = 0 if params.mirostat_tau else params.xtc_probability
        expected = dict.fromkeys(range(len(values)), 0.0)
        for share, exclude in ((1 - chance, False), (chance, True)):
            for token, probability in account(values, params, exclude).items():
                expected[token] += share * probability

        found = Sampler(params).probabilities(logits(values))

        assert found == pytest.approx(list(expected.values()), abs=1e-9)

    @pytest.mark.parametrize(
        "params",
        [
            {"temperature": 0.6, "top_k": 9},
            {"temperature": 2.5, "top_p": 0.8},
            {"min_p": 0.1, "presence_penalty": 1.0},
            {"typical_p": 0.6},
            {"xtc_probability": 0.4, "xtc_threshold": 0.05},
            {"mirostat_tau": 2.0, "mirostat_eta": 0.0},
        ],
    )
    def test_draws(self, params: dict[str, Any]) -> None:
        """Tokens come as often as their probabilities say."""
        values = logits(np.random.default_rng(5).normal(0, 1.5, 20))
        one, count = drawing(**params), 4000
        one.accept(3)
        expected = one.probabilities(values) * count

        counts = np.bincount([one.choose(values) for _ in range(count)], minlength=20)

        possible = expected > 0
        assert not counts[~possible].any()
        gaps = (counts - expected)[possible] ** 2 / expected[possible]
        assert gaps.sum() < 45  # 99.9 % quantile of 19 degrees of freedom is 43.8

    def test_large_vocabulary(self) -> None:
        """What is kept of many tokens is what sorting all of them would keep."""
        values = logits(np.random.default_rng(5).normal(0, 2, 50_000).round(1))
        order = np.argsort(-values, kind="stable")
        p = np.exp(values[order].astype(float))
        p /= p.sum()
        for count in (1, 40, 700, 9000):
            assert sorted(order[:count].tolist()) == kept(values, top_k=count)
        for mass in (0.01, 0.2, 0.6, 0.95):
            count = int((p.cumsum() < mass).sum()) + 1
            assert sorted(order[:count].tolist()) == kept(values, top_p=mass)


class TestTypical:
    def test_skips_the_obvious(self) -> None:
        """A token that is much more likely than average is not typical."""
        values = from_probabilities(0.4, *[0.05] * 12)  # mean surprise is 2.16 nats

        assert 0 in kept(values, top_k=1)
        assert 0 not in kept(values, typical_p=0.2)

    def test_ignores_the_impossible(self) -> None:
        """Forbidden tokens do not disturb what is typical of the others."""
        values = from_probabilities(0.4, 0.3, 0.2, 0.1)

        assert kept(values, typical_p=0.5) == kept(
            np.append(values, np.float32(-np.inf)), typical_p=0.5
        )


class TestXtc:
    VALUES = from_probabilities(0.4, 0.3, 0.2, 0.1)

    def test_excludes(self) -> None:
        """Of the tokens at the threshold only the least likely one stays."""
        params = {"xtc_probability": 1.0, "xtc_threshold": 0.15}

        assert kept(self.VALUES, **params) == [2, 3]

    @pytest.mark.parametrize("threshold", [0.35, 0.45, 1.0])
    def test_less_than_two(self, threshold: float) -> None:
        """Where fewer than two tokens reach the threshold nothing is excluded."""
        params = {"xtc_probability": 1.0, "xtc_threshold": threshold}

        assert kept(self.VALUES, **params) == [0, 1, 2, 3]

    def test_all(self) -> None:
        """Where all reach the threshold the least likely one is left."""
        assert kept(self.VALUES, xtc_probability=1.0, xtc_threshold=0.01) == [3]

    def test_sometimes(self) -> None:
        """It happens with its probability, otherwise nothing is excluded."""
        one = drawing(xtc_probability=0.25, xtc_threshold=0.35, top_k=2)
        even = from_probabilities(0.5, 0.5)

        assert one.probabilities(even).tolist() == pytest.approx([0.625, 0.375])

    def test_greedy(self) -> None:
        """Greedy ignores it."""
        params = SamplingParams(xtc_probability=1.0, xtc_threshold=0.01)

        assert Sampler(params).choose(self.VALUES) == 0


class TestMirostat:
    @pytest.mark.parametrize("tau", [1.0, 2.5, 4.0])
    def test_converges(self, tau: float) -> None:
        """The mean surprise of what is drawn approaches tau."""
        values = logits(np.random.default_rng(5).normal(0, 2, 500))
        one, surprise = drawing(mirostat_tau=tau), []
        for _ in range(1500):
            p = one.probabilities(values)
            surprise.append(-math.log2(p[one.choose(values)]))

        assert np.mean(surprise[300:]) == pytest.approx(tau, abs=0.1)

    def test_replaces(self) -> None:
        """The other ways to keep a part do not matter."""
        values = logits(np.random.default_rng(5).normal(0, 2, 50))
        others = {"top_k": 1, "top_p": 0.1, "min_p": 1.0, "typical_p": 0.1}

        alone = drawing(mirostat_tau=2.0)
        both = drawing(mirostat_tau=2.0, xtc_probability=1.0, **others)

        assert [alone.choose(values) for _ in range(30)] == [
            both.choose(values) for _ in range(30)
        ]

    def test_one_stays(self) -> None:
        """Where everything is more surprising than allowed the best one is drawn."""
        values = logits([0, 0.1] * 50)

        assert kept(values, mirostat_tau=0.01) == [1]


class TestExtremes:
    @given(vocabularies, parameters, st.sets(st.integers(0, 8), max_size=4))
    def test_never_empty(
        self, values: list[float], fields: dict[str, Any], banned: set[int]
    ) -> None:
        """Something is always left, and it is never what is banned or impossible."""
        values.append(-5.0)
        banned.discard(len(values) - 1)
        one = Sampler(SamplingParams(**fields), 1)

        p = one.probabilities(logits(values), banned)
        token = one.choose(logits(values), banned)

        assert p.sum() == pytest.approx(1)
        assert p[token] > 0
        assert token not in banned
        assert values[token] > -math.inf

    @given(parameters, st.integers(1, 4))
    def test_certain(self, fields: dict[str, Any], count: int) -> None:
        """Infinite logits leave no other token, whatever else is asked."""
        values = logits([math.inf] * count + [3.0, -math.inf])

        assert Sampler(SamplingParams(**fields), 1).choose(values) < count
