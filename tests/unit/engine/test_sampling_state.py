"""What a sampler remembers, what it must not draw, and what it tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.engine.logprobs import logprobs
from llmcore.engine.sampling import Sampler
from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

VALUES = np.random.default_rng(5).normal(0, 2, 40).astype(np.float32)


def logits(*values: float) -> Any:
    return np.array(values, np.float32)


def busy(**params: Any) -> Sampler:
    """A sampler that has something of everything to remember."""
    fields = {"temperature": 1.0, "frequency_penalty": 0.2, "dry_multiplier": 0.5}
    one = Sampler(SamplingParams(**fields | params), 1)
    for _ in range(20):
        one.sample(VALUES)
    return one


OPTIONS = [{}, {"mirostat_tau": 3.0}, {"xtc_probability": 0.5}, {"temperature": 0.0}]


class TestFork:
    @pytest.mark.parametrize("params", OPTIONS)
    def test_goes_on(self, params: dict[str, Any]) -> None:
        """A fork draws what its original draws."""
        one = busy(**params)
        twin = one.fork()

        assert [one.sample(VALUES) for _ in range(40)] == [
            twin.sample(VALUES) for _ in range(40)
        ]

    @pytest.mark.parametrize("params", OPTIONS)
    def test_independent(self, params: dict[str, Any]) -> None:
        """What a fork draws changes nothing for its original."""
        one, other = busy(**params), busy(**params)
        twin = one.fork()
        for _ in range(40):
            twin.sample(VALUES)

        assert [one.sample(VALUES) for _ in range(40)] == [
            other.sample(VALUES) for _ in range(40)
        ]

    def test_seed(self) -> None:
        """A fork reports the seed of its original."""
        assert busy().fork().seed == 1

    def test_probabilities(self) -> None:
        """Asking for the probabilities uses up no random numbers."""
        one = busy(xtc_probability=0.5)
        twin = one.fork()
        one.probabilities(VALUES)

        assert [one.choose(VALUES) for _ in range(9)] == [
            twin.choose(VALUES) for _ in range(9)
        ]


class TestBanned:
    @given(st.sets(st.integers(0, 39), max_size=39), st.sampled_from([0.0, 1.0]))
    def test_never(self, banned: set[int], temperature: float) -> None:
        """A banned token is not drawn, whatever its logit."""
        one = Sampler(SamplingParams(temperature=temperature), 1)

        assert all(one.sample(VALUES, banned) not in banned for _ in range(20))

    def test_greedy(self) -> None:
        """Without the best token the next best one is taken."""
        assert Sampler(SamplingParams()).sample(logits(1, 9, 5), [1]) == 2

    def test_against_bias(self) -> None:
        """No bias makes a banned token possible."""
        one = Sampler(SamplingParams(logit_bias={1: math.inf}))

        assert one.choose(logits(1, 2, 3), banned={1}) == 2

    def test_this_time(self) -> None:
        """A ban holds for one token only."""
        one = Sampler(SamplingParams())

        assert [one.sample(logits(1, 9), ban) for ban in ({1}, ())] == [0, 1]

    def test_outside(self) -> None:
        """Tokens that the model does not have may be banned."""
        assert Sampler(SamplingParams()).sample(logits(1, 9), {1, 7}) == 0

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_all(self, temperature: float) -> None:
        """When all tokens are banned there is nothing to choose, and it says so."""
        one = Sampler(SamplingParams(temperature=temperature))

        with pytest.raises(DecodeError, match="let logit_bias, min_tokens"):
            one.sample(logits(1, 9), {0, 1})

    def test_unchanged(self) -> None:
        """The logits are not written to."""
        values = logits(1, 9)
        values.flags.writeable = False

        assert Sampler(SamplingParams()).sample(values, {1}) == 0


class TestProbabilities:
    def test_greedy(self) -> None:
        """Greedy sampling is certain of its token."""
        p = Sampler(SamplingParams()).probabilities(logits(0, 7, 7))

        assert p.tolist() == [0, 1, 0]

    def test_penalties(self) -> None:
        """They count what was accepted."""
        one = Sampler(SamplingParams(temperature=1.0, presence_penalty=50.0))
        one.accept(0)

        assert one.probabilities(logits(3, 0)).tolist() == pytest.approx([0, 1])


class TestLogprobs:
    def test_values(self) -> None:
        """They are the natural logarithms of the model's probabilities."""
        own, best = logprobs(logits(*np.log([0.1, 0.6, 0.3])), 0, 2)

        assert own == pytest.approx(math.log(0.1))
        assert [token for token, _ in best] == [1, 2]
        assert [p for _, p in best] == pytest.approx([math.log(0.6), math.log(0.3)])

    @given(
        st.lists(st.sampled_from([-math.inf, -9.0, 0.0, 1.0, 80.0]), min_size=1),
        st.integers(0, 20),
    )
    def test_order(self, values: list[float], top: int) -> None:
        """The most likely come first, of equals the lowest number, at most all."""
        values.append(2.0)
        order = sorted(range(len(values)), key=lambda t: (-values[t], t))

        own, best = logprobs(logits(*values), order[0], top)

        assert [token for token, _ in best] == order[:top]
        assert all(p == own for token, p in best if values[token] == max(values))

    def test_sum(self) -> None:
        """All of them together are a probability of one."""
        _, every = logprobs(VALUES, 0, 1000)

        assert len(every) == 40
        assert math.fsum(math.exp(p) for _, p in every) == pytest.approx(1, abs=1e-12)

    def test_far_apart(self) -> None:
        """Logits far apart keep their distance."""
        own, best = logprobs(logits(-5000, 5000), 0, 1)

        assert own == -10000
        assert best == [(1, 0.0)]

    def test_impossible(self) -> None:
        """A token that is impossible has minus infinity."""
        own, best = logprobs(logits(-math.inf, 1), 0, 2)

        assert own == -math.inf
        assert best == [(1, 0.0), (0, -math.inf)]

    def test_certain(self) -> None:
        """Infinite logits share the whole probability."""
        own, best = logprobs(logits(math.inf, 1, math.inf), 1, 2)

        assert own == -math.inf
        assert best == [(0, -math.log(2)), (2, -math.log(2))]

    @pytest.mark.parametrize("bad", [math.nan, -math.inf])
    def test_nothing(self, bad: float) -> None:
        """Where there is no distribution there are no probabilities."""
        with pytest.raises(DecodeError):
            logprobs(logits(bad, bad), 0, 1)


class TestParams:
    @pytest.mark.parametrize(
        "field",
        [
            {"typical_p": 0.0},
            {"xtc_probability": 1.1},
            {"xtc_threshold": 0.0},
            {"mirostat_tau": -1.0},
            {"mirostat_eta": 1.5},
            {"dry_multiplier": -1.0},
            {"dry_base": 0.9},
            {"dry_allowed_length": 0},
            {"dry_penalty_last_n": -1},
            {"dry_breakers": ("",)},
            {"dry_breakers": (7,)},
        ],
    )
    def test_refused(self, field: dict[str, Any]) -> None:
        """A value out of range is refused by its name."""
        with pytest.raises(ValueError, match=f"^{next(iter(field))} must be"):
            SamplingParams(**field)

    def test_breakers(self) -> None:
        """One text stands for itself."""
        assert SamplingParams(dry_breakers="ab").dry_breakers == ("ab",)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, 0),
            ({"presence_penalty": 1.0}, 64),
            ({"dry_multiplier": 1.0}, 1024),
            ({"dry_multiplier": 1.0, "dry_penalty_last_n": 9}, 9),
            ({"dry_multiplier": 1.0, "dry_penalty_last_n": 0}, 0),
            (
                {
                    "dry_multiplier": 1.0,
                    "dry_penalty_last_n": 9,
                    "repeat_penalty": 2.0,
                },
                64,
            ),
        ],
    )
    def test_lookback(self, fields: dict[str, Any], expected: int) -> None:
        """It is as long as the longest window that is in use."""
        assert expected == SamplingParams(**fields).lookback

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, True),
            ({"temperature": 1.0, "min_p": 0.5, "repeat_penalty": 2.0}, True),
            ({"typical_p": 0.5, "xtc_probability": 1.0, "mirostat_tau": 1.0}, True),
            ({"temperature": 1.0, "typical_p": 0.5}, False),
            ({"temperature": 1.0, "xtc_probability": 1.0}, False),
            ({"temperature": 1.0, "mirostat_tau": 1.0}, False),
            ({"dry_multiplier": 1.0}, False),
        ],
    )
    def test_is_basic(self, fields: dict[str, Any], expected: bool) -> None:
        """Only what changes the choice makes parameters more than basic."""
        assert expected == SamplingParams(**fields).is_basic
