"""What makes tokens less likely because of the tokens before them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcore.engine.penalties import Dry
from llmcore.engine.sampling import Sampler
from llmcore.values import SamplingParams

A, B, C, Y, BREAK = range(5)
PIECES = [b"a", b"b", b"c", b"y", b"x\n"]


def dry(*tokens: int, **params: Any) -> Dry:
    params = {"dry_multiplier": 1.0} | params
    one = Dry(SamplingParams(**params), PIECES.__getitem__)
    for token in tokens:
        one.accept(token)
    return one


def penalties(*tokens: int, **params: Any) -> dict[int, float]:
    """What is subtracted from each token, where anything is."""
    values = np.zeros(len(PIECES), np.float32)
    dry(*tokens, **params).penalise(values)
    return {t: float(-values[t]) for t in np.flatnonzero(values).tolist()}


def repetitions(tokens: list[int], allowed: int) -> dict[int, int]:
    """The longest end of the tokens that occurred before each token."""
    longest: dict[int, int] = {}
    for place in range(1, len(tokens)):
        for n in range(allowed, place + 1):
            end = tokens[-n:]
            if BREAK in end or tokens[place] == BREAK:
                break
            if tokens[place - n : place] == end:
                longest[tokens[place]] = max(n, longest.get(tokens[place], 0))
    return longest


class TestDry:
    def test_worked_example(self) -> None:
        """The example in the comments of llama.cpp gives the lengths that it says."""
        one = dry(A, B, C, C, B, C, Y, A, B, C, dry_allowed_length=1)

        assert one.repeated() == {C: 3, B: 1, Y: 2}

    def test_amount(self) -> None:
        """The multiplier times the base to the power of what is beyond the allowed."""
        amounts = penalties(
            *(A, B, C, C, B, C, Y, A, B, C), dry_multiplier=0.8, dry_base=1.75
        )

        assert amounts == pytest.approx({C: 0.8 * 1.75, Y: 0.8})

    @given(st.lists(st.integers(0, 4), max_size=24), st.integers(1, 4))
    @example([A, B, C, Y, B, C, A, B], 1)  # C went on with more, and later with less
    def test_repetitions(self, tokens: list[int], allowed: int) -> None:
        """It finds what comparing every place with the end finds."""
        one = dry(*tokens, dry_allowed_length=allowed)

        assert one.repeated() == repetitions(tokens, allowed)

    def test_window(self) -> None:
        """What is further back than dry_penalty_last_n is forgotten."""
        tokens = (A, B, C, A, B)

        assert penalties(*tokens, dry_penalty_last_n=5) == {C: 1.0}
        assert penalties(*tokens, dry_penalty_last_n=4) == {}

    def test_allowed_length(self) -> None:
        """Shorter repetitions are free."""
        tokens = (A, B, C, A, B)

        assert penalties(*tokens, dry_allowed_length=3) == {}

    def test_breaker(self) -> None:
        """A repetition does not reach over a breaker."""
        tokens = (A, BREAK, B, Y, A, BREAK, B)

        assert penalties(*tokens) == {}
        assert penalties(*tokens, dry_breakers=()) == {Y: 1.75}

    def test_breaker_itself(self) -> None:
        """A breaker may always follow."""
        tokens = (A, B, BREAK, A, B)

        assert penalties(*tokens) == {}
        assert penalties(*tokens, dry_breakers="Z") == {BREAK: 1.0}

    def test_without_pieces(self) -> None:
        """Without the text of the tokens there are no breakers."""
        one = Dry(SamplingParams(dry_multiplier=1.0), None)
        for token in (A, B, BREAK, A, B):
            one.accept(token)

        assert one.repeated() == {BREAK: 2}

    def test_asks_once(self) -> None:
        """The text of a token is asked for once, and only if it matters."""
        asked = Counter[int]()

        def piece(token: int) -> bytes:
            asked[token] += 1
            return PIECES[token]

        one = Dry(SamplingParams(dry_multiplier=1.0), piece)
        for token in (Y, A, B, C, A, B):
            one.accept(token)
        one.repeated()
        one.fork().repeated()

        assert asked == {A: 1, B: 1, C: 1}

    @pytest.mark.parametrize("base", [1.0, 1.01, 1.75, 100.0])
    def test_long_repetition(self, base: float) -> None:
        """However long a repetition, its token stays possible."""
        values = np.zeros(5, np.float32)
        dry(*[A] * 2000, dry_base=base, dry_multiplier=100.0).penalise(values)

        assert -np.inf < values[A] <= -100

    def test_sampler(self) -> None:
        """The sampler stops a loop that it would be in without."""
        likely = np.array([3.0, 2.0, 0.0, 0.0, 0.0], np.float32)
        free = Sampler(SamplingParams())
        one = Sampler(SamplingParams(dry_multiplier=2.0), piece=PIECES.__getitem__)

        assert [free.sample(likely) for _ in range(6)] == [A] * 6
        assert [one.sample(likely) for _ in range(6)] == [A, A, A, B, A, A]


class TestTogether:
    def test_order(self) -> None:
        """DRY is subtracted after the other penalties changed the logit."""
        params = {"repeat_penalty": 2.0, "presence_penalty": 0.5}
        one = Sampler(SamplingParams(temperature=1.0, dry_multiplier=1.0, **params), 1)
        for token in (A, B, A, B):
            one.accept(token)
        values = np.array([4.0, 3.0, 2.0], np.float32)

        expected = np.exp([4 / 2 - 0.5 - 1, 3 / 2 - 0.5, 2])

        assert one.probabilities(values) == pytest.approx(expected / expected.sum())

    @given(st.lists(st.integers(0, 4), max_size=30), st.integers(1, 8))
    def test_counts(self, tokens: list[int], last: int) -> None:
        """Each token is penalised by how often it is in the window."""
        params = SamplingParams(
            temperature=1.0, top_p=1.0, frequency_penalty=0.5, penalty_last_n=last
        )
        one = Sampler(params, 1)
        for token in tokens:
            one.accept(token)
        counts = Counter(tokens[-last:])
        expected = np.exp([-0.5 * counts[token] for token in range(5)])

        found = one.probabilities(np.zeros(5, np.float32))

        assert found == pytest.approx(expected / expected.sum())
