from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmcore.engine.sampling import Sampler
from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

Logits = NDArray[np.float32]

DRAWS = 4000


def logits(*values: float) -> Logits:
    return np.array(values, np.float32)


def from_probabilities(*values: float) -> Logits:
    with np.errstate(divide="ignore"):
        return logits(*np.log(values))


def sampler(seed: int = 1, **params: Any) -> Sampler:
    """A sampler that draws from the whole distribution unless it is told otherwise."""
    everything = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return Sampler(SamplingParams(**everything | params), seed)


def drawn(values: Logits, **params: Any) -> set[int]:
    """Every token that comes out of many draws."""
    one = sampler(**params)
    return {one.sample(values) for _ in range(300)}


# Few different values, so that equal logits are common.
vocabularies = st.lists(
    st.sampled_from([-math.inf, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0]),
    min_size=1,
    max_size=9,
).filter(lambda values: max(values) > -math.inf)


class TestGreedy:
    def test_default(self) -> None:
        """The default parameters take the most likely token."""
        assert Sampler(SamplingParams()).sample(logits(1, 2, 9, 3)) == 2

    def test_ties(self) -> None:
        """Of equally likely tokens the lowest number is taken."""
        assert Sampler(SamplingParams()).sample(logits(0, 7, 7, 7)) == 1

    @given(vocabularies)
    def test_cold_limit(self, values: list[float]) -> None:
        """A temperature near zero draws one of the most likely tokens."""
        token = sampler(temperature=1e-300).sample(logits(*values))

        assert max(values) == values[token]

    @given(vocabularies)
    def test_top_k_of_one(self, values: list[float]) -> None:
        """Keeping one token is the same as greedy, also for equal logits."""
        greedy = Sampler(SamplingParams()).sample(logits(*values))

        assert greedy == sampler(top_k=1, temperature=50).sample(logits(*values))


class TestFilters:
    @given(vocabularies, st.integers(1, 9))
    def test_top_k(self, values: list[float], k: int) -> None:
        """top_k keeps the k most likely tokens, of equals those of lowest number."""
        by_rank = sorted(range(len(values)), key=lambda token: -values[token])
        possible = {t for t in by_rank[:k] if values[t] > -math.inf}

        assert possible == drawn(logits(*values), top_k=k, temperature=100)

    @pytest.mark.parametrize(
        ("top_p", "kept"),
        [(0.3, {1}), (0.5, {1}), (0.6, {1, 3}), (0.8, {0, 1, 3}), (1.0, {0, 1, 2, 3})],
    )
    def test_top_p(self, top_p: float, kept: set[int]) -> None:
        """top_p keeps the smallest set of tokens that reaches that probability."""
        values = from_probabilities(0.125, 0.5, 0.125, 0.25)

        assert kept == drawn(values, top_p=top_p)

    def test_top_p_after_top_k(self) -> None:
        """top_p counts the probability among the tokens that top_k kept."""
        values = from_probabilities(0.4, 0.2, 0.2, 0.2)

        assert {0} == drawn(values, top_k=2, top_p=0.6)
        assert {0, 1} == drawn(values, top_p=0.6)

    def test_top_p_ignores_temperature(self) -> None:
        """The set is chosen before the temperature changes the distribution."""
        values = from_probabilities(0.6, 0.3, 0.1)

        assert {0} == drawn(values, top_p=0.5, temperature=100)

    @pytest.mark.parametrize(
        ("min_p", "kept"),
        [(0.0, {0, 1, 2}), (0.2, {0, 1, 2}), (0.4, {0, 1}), (0.9, {0}), (1.0, {0})],
    )
    def test_min_p(self, min_p: float, kept: set[int]) -> None:
        """min_p keeps the tokens with at least that share of the best probability."""
        values = from_probabilities(0.55, 0.3, 0.15)

        assert kept == drawn(values, min_p=min_p)

    def test_min_p_of_one_keeps_equals(self) -> None:
        """A token as likely as the best one passes every min_p."""
        assert {1, 2} == drawn(logits(0, 5, 5), min_p=1.0)


class TestPenalties:
    def greedy(self, **params: Any) -> Sampler:
        return Sampler(SamplingParams(**params))

    def test_repeat_penalty_positive(self) -> None:
        """The repeat penalty divides the positive logit of a token seen before."""
        one = self.greedy(repeat_penalty=2.0)
        one.accept(0)

        assert one.sample(logits(4.0, 1.9)) == 0
        assert one.sample(logits(4.0, 2.1)) == 1

    def test_repeat_penalty_negative(self) -> None:
        """The repeat penalty multiplies the negative logit of a token seen before."""
        one = self.greedy(repeat_penalty=2.0)
        one.accept(0)

        assert one.sample(logits(-1.0, -1.9)) == 1

    def test_repeat_penalty_once(self) -> None:
        """The repeat penalty does not grow with the number of occurrences."""
        one = self.greedy(repeat_penalty=2.0)
        for _ in range(5):
            one.accept(0)

        assert one.sample(logits(4.0, 1.9)) == 0

    def test_frequency_penalty(self) -> None:
        """The frequency penalty is subtracted once for each occurrence."""
        one = self.greedy(frequency_penalty=1.0)
        chosen = [one.sample(logits(2.5, 0.0)) for _ in range(4)]

        assert chosen == [0, 0, 0, 1]

    def test_presence_penalty(self) -> None:
        """The presence penalty is subtracted once, however often a token occurs."""
        one = self.greedy(presence_penalty=1.0)
        chosen = [one.sample(logits(2.5, 0.0)) for _ in range(4)]

        assert chosen == [0, 0, 0, 0]

    def test_window(self) -> None:
        """A token further back than penalty_last_n is not penalised."""
        one = self.greedy(presence_penalty=9.0, penalty_last_n=2)
        chosen = [one.sample(logits(3, 2, 1, 0)) for _ in range(6)]

        assert chosen == [0, 1, 2, 0, 1, 2]

    def test_window_of_zero(self) -> None:
        """A window of no tokens disables the penalties."""
        one = self.greedy(presence_penalty=9.0, penalty_last_n=0)

        assert [one.sample(logits(1, 0)) for _ in range(2)] == [0, 0]

    def test_accept(self) -> None:
        """A token that was forced counts like one that was drawn."""
        one = self.greedy(presence_penalty=9.0)
        one.accept(0)

        assert one.sample(logits(1, 0)) == 1

    def test_choose(self) -> None:
        """A token that is only chosen is not counted until it is accepted."""
        one = self.greedy(presence_penalty=9.0)

        assert [one.choose(logits(1, 0)) for _ in range(2)] == [0, 0]
        one.accept(0)
        assert one.choose(logits(1, 0)) == 1

    def test_keeps_infinity(self) -> None:
        """A penalised token that is impossible stays impossible."""
        one = self.greedy(repeat_penalty=1e-300, frequency_penalty=-9)
        one.accept(0)

        assert one.sample(logits(-math.inf, -100)) == 1


class TestBias:
    @given(vocabularies, st.integers(0, 8))
    def test_forbids(self, values: list[float], token: int) -> None:
        """A bias of -inf makes a token impossible."""
        token %= len(values)
        values.append(0.0)

        assert token not in drawn(
            logits(*values), logit_bias={token: -math.inf}, temperature=100
        )

    def test_forces(self) -> None:
        """A bias of inf leaves no other token."""
        assert {1} == drawn(logits(9, 0, 9), logit_bias={1: math.inf})

    def test_forces_greedy(self) -> None:
        """A bias of inf decides for greedy sampling too."""
        assert (
            Sampler(SamplingParams(logit_bias={1: math.inf})).sample(logits(9, 0)) == 1
        )

    def test_huge(self) -> None:
        """A bias beyond the range of the logits does what an infinite one does."""
        assert {1} == drawn(logits(9, 0), logit_bias={1: 1e300})

    def test_before_penalties(self) -> None:
        """The bias is added before repetition is penalised."""
        params = SamplingParams(logit_bias={0: 4.0}, repeat_penalty=2.0)
        one = Sampler(params)
        one.accept(0)

        assert one.sample(logits(-2.0, 1.5)) == 1  # (-2 + 4) / 2, not -2 * 2 + 4

    def test_outside_vocabulary(self) -> None:
        """A bias for a token that the model does not have is refused by name."""
        one = Sampler(SamplingParams(logit_bias={7: 1.0}))

        with pytest.raises(ValueError, match=r"logit_bias\[7\] is outside"):
            one.sample(logits(1, 2))


class TestDistribution:
    @pytest.mark.parametrize("seed", range(3))
    def test_matches(self, seed: int) -> None:
        """The draws follow the softmax of the logits over the temperature."""
        values, temperature = logits(0.0, 1.0, -1.0, 2.0, 0.5, -math.inf), 1.7
        one = sampler(seed, temperature=temperature)
        weights = np.exp(values[:-1].astype(float) / temperature)
        expected = weights / weights.sum() * DRAWS

        counts = np.bincount([one.sample(values) for _ in range(DRAWS)], minlength=6)
        chi_square = ((counts[:-1] - expected) ** 2 / expected).sum()

        assert counts[-1] == 0
        assert chi_square < 18.47  # 99.9 % quantile of 4 degrees of freedom

    def test_kept_are_renormalised(self) -> None:
        """The tokens that remain share the whole probability in proportion."""
        values = from_probabilities(0.5, 0.1, 0.25, 0.15)
        one = sampler(top_k=2)

        counts = np.bincount([one.sample(values) for _ in range(DRAWS)], minlength=4)

        assert [counts[1], counts[3]] == [0, 0]
        assert counts[0] / DRAWS == pytest.approx(2 / 3, abs=0.025)

    def test_only_one_possible(self) -> None:
        """When all logits but one are -inf that token is drawn."""
        assert {2} == drawn(logits(-math.inf, -math.inf, -5, -math.inf))


class TestSeed:
    def test_repeats(self) -> None:
        """Two samplers of one seed choose the same tokens."""
        values = np.zeros(1000, np.float32)
        first, second = sampler(7), sampler(7)

        assert [first.sample(values) for _ in range(20)] == [
            second.sample(values) for _ in range(20)
        ]

    def test_known_answer(self) -> None:
        """The tokens of a seed are the same on every machine and every version."""
        one = sampler(seed=2024)

        chosen = [one.sample(np.zeros(1000, np.float32)) for _ in range(5)]

        assert chosen == [675, 214, 309, 799, 995]

    def test_argument(self) -> None:
        """The seed that is given to the sampler is the one that it reports."""
        assert Sampler(SamplingParams(seed=9), 5).seed == 5

    def test_from_params(self) -> None:
        """Without a seed of its own the sampler uses that of the parameters."""
        assert Sampler(SamplingParams(seed=9)).seed == 9

    def test_drawn(self) -> None:
        """Without any seed each sampler draws one, and repeats with it."""
        values = np.zeros(2**20, np.float32)
        one = sampler(seed=None)  # type: ignore[arg-type]

        assert sampler(one.seed).sample(values) == one.sample(values)
        assert len({Sampler(SamplingParams()).seed for _ in range(4)}) > 1


class TestInput:
    def test_unchanged(self) -> None:
        """The logits may be the engine's own memory: they are never written to."""
        values = logits(1, 2, 3)
        values.flags.writeable = False
        one = sampler(top_k=2, repeat_penalty=1.5, logit_bias={0: 1.0})

        one.accept(1)
        one.sample(values)

        assert values.tolist() == [1, 2, 3]

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_nan(self, temperature: float) -> None:
        """NaN among the logits is an error of the evaluation, never a token."""
        with pytest.raises(DecodeError, match="NaN"):
            sampler(temperature=temperature).sample(logits(1, math.nan, 2))

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_nothing_left(self, temperature: float) -> None:
        """When every token is forbidden there is nothing to choose, and it says so."""
        one = sampler(temperature=temperature, logit_bias={0: -math.inf})

        with pytest.raises(DecodeError, match="every logit is -inf"):
            one.sample(logits(1, -math.inf))
