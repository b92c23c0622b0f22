"""The native sampler means what `SamplingParams` says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from llmcore.backends.null.sampler import NullSampler
from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

from .conftest import MakeEngine

MakeSampler = Callable[..., NullSampler]
LOGITS = [1.0, 4.0, 3.0, 4.0, -2.0, 0.0]


@pytest.fixture(name="sampler")
def _sampler(engine: MakeEngine) -> MakeSampler:
    context = engine().context
    return lambda seed=1, **params: context.create_sampler(
        SamplingParams(**params), seed
    )


def drawn(sampler: NullSampler, count: int = 3000) -> Counter[int]:
    return Counter(sampler.draw(LOGITS) for _ in range(count))


class TestSampler:
    def test_greedy(self, sampler: MakeSampler) -> None:
        """At temperature 0 it takes the best, the lowest number of equal ones."""
        assert sampler().draw(LOGITS) == 1

    def test_matches_logits(self, engine: MakeEngine) -> None:
        """Greedy sampling takes the maximum of the logits."""
        one = engine()
        best = one.feed([1, 2, 3])
        greedy = one.context.create_sampler(SamplingParams(), 1)
        assert best == one.context.sample(2, greedy)

    def test_bias(self, sampler: MakeSampler) -> None:
        """A bias can forbid a token or raise it."""
        assert sampler(logit_bias={1: -math.inf, 4: 9.0}).draw(LOGITS) == 4

    @pytest.mark.parametrize(
        "penalty",
        [
            {"repeat_penalty": 2.0},
            {"frequency_penalty": 1.5},
            {"presence_penalty": 1.5},
        ],
    )
    def test_penalties(self, sampler: MakeSampler, penalty: dict[str, float]) -> None:
        """Accepted tokens become less likely."""
        one = sampler(**penalty)
        one.accept(1)
        assert one.draw(LOGITS) == 3
        one.accept(3)
        assert one.draw(LOGITS) == 2

    def test_repeat_penalty_of_negative(self, sampler: MakeSampler) -> None:
        """Negative logits are multiplied."""
        one = sampler(repeat_penalty=3.0)
        one.accept(0)
        assert one.draw([-1.0, -2.0]) == 1

    @pytest.mark.parametrize(("last", "expected"), [(0, 1), (1, 1), (2, 3)])
    def test_penalty_window(
        self, sampler: MakeSampler, last: int, expected: int
    ) -> None:
        """Only the last tokens are penalised."""
        one = sampler(presence_penalty=3.0, penalty_last_n=last)
        one.accept(1)
        one.accept(2)
        assert expected == one.draw(LOGITS)

    def test_sampled_tokens_count(self, engine: MakeEngine) -> None:
        """What it draws from the context is accepted by itself."""
        one = engine()
        one.feed([1, 2, 3])
        own = one.context.create_sampler(SamplingParams(presence_penalty=50.0), 1)
        assert one.context.sample(2, own) != one.context.sample(2, own)

    def test_seed(self, sampler: MakeSampler) -> None:
        """The same seed draws the same tokens."""
        runs = [
            [one.draw(LOGITS) for _ in range(20)]
            for one in (sampler(5, temperature=1.0), sampler(5, temperature=1.0))
        ]
        assert runs[0] == runs[1]

    @pytest.mark.parametrize(
        ("params", "kept"),
        [
            ({"top_k": 2, "top_p": 1.0}, {1, 3}),
            ({"top_k": 0, "top_p": 1.0, "temperature": 50.0}, {0, 1, 2, 3, 4, 5}),
            ({"top_p": 0.4}, {1}),
            ({"top_p": 0.5}, {1, 3}),
            ({"top_p": 0.9}, {1, 2, 3}),
            ({"top_p": 1.0, "min_p": 0.3}, {1, 2, 3}),
            ({"top_p": 1.0, "min_p": 1.0}, {1, 3}),
        ],
    )
    def test_filters(
        self, sampler: MakeSampler, params: dict[str, Any], kept: set[int]
    ) -> None:
        """Each filter keeps what it should, before the temperature."""
        assert kept == set(drawn(sampler(**{"temperature": 5.0, **params})))

    def test_temperature(self, sampler: MakeSampler) -> None:
        """Tokens are drawn by the softmax of the logits over the temperature."""
        counts = drawn(sampler(temperature=2.0, top_p=1.0, top_k=0), 20000)
        shares = [math.exp(value / 2) for value in LOGITS]
        for token, share in enumerate(shares):
            assert counts[token] / 20000 == pytest.approx(share / sum(shares), abs=0.02)

    @pytest.mark.parametrize(
        "params",
        [
            {"dry_multiplier": 1.0},
            {"temperature": 1.0, "typical_p": 0.5},
            {"temperature": 1.0, "xtc_probability": 0.5},
            {"temperature": 1.0, "mirostat_tau": 5.0},
            {"logit_bias": {1: math.inf}},
            {"logit_bias": {2**20: 1.0}},
        ],
    )
    def test_not_expressed(self, sampler: MakeSampler, params: dict[str, Any]) -> None:
        """Where it does not know the meaning, core has to sample."""
        assert sampler(**params) is None

    def test_greedy_ignores(self, sampler: MakeSampler) -> None:
        """At temperature 0 what only matters for drawing is no hindrance."""
        params = {"typical_p": 0.5, "xtc_probability": 0.5, "mirostat_tau": 5.0}
        assert sampler(**params).draw(LOGITS) == 1

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_nothing_left(self, sampler: MakeSampler, temperature: float) -> None:
        """When every token is forbidden it draws none, and says so."""
        forbidden = dict.fromkeys(range(len(LOGITS)), -math.inf)
        one = sampler(temperature=temperature, logit_bias=forbidden)
        with pytest.raises(DecodeError, match="every logit is -inf"):
            one.draw(LOGITS)
