"""The scheduling policies, as the pure functions that they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.engine.callers import CallersError
from llmcore.engine.scheduling import (
    FirstInFirstOut,
    OneAtATime,
    Parallel,
    SchedulingPolicy,
    Waiting,
    WholeInputs,
    checked_shares,
    policy_for,
)
from llmcore.values import ContextParams

ALL = [Parallel(), FirstInFirstOut(), OneAtATime(), WholeInputs()]
GREEDY = ALL[:2]  # those that leave nothing of a step unused

lines = st.lists(
    st.builds(
        Waiting,
        tokens=st.integers(1, 40),
        running=st.booleans(),
        priority=st.integers(-2, 2),
        served=st.integers(0, 9),
    ),
    min_size=1,
    max_size=8,
)
spare = st.integers(0, 60)


def prompt(tokens: int = 10, priority: int = 0, served: int = 0) -> Waiting:
    return Waiting(tokens, False, priority, served)


def answer(tokens: int = 1, priority: int = 0, served: int = 0) -> Waiting:
    return Waiting(tokens, True, priority, served)


class TestEveryPolicy:
    @pytest.mark.parametrize("policy", ALL)
    @given(line=lines, more=spare)
    def test_shares_are_valid(
        self, policy: SchedulingPolicy, line: list[Waiting], more: int
    ) -> None:
        """Whoever waits, core accepts what each of its own policies says."""
        budget = len(line) + more
        assert checked_shares(policy, line, budget) == policy.share(line, budget)

    @pytest.mark.parametrize("policy", GREEDY)
    @given(line=lines, more=spare)
    def test_all_of_a_step_is_used(
        self, policy: SchedulingPolicy, line: list[Waiting], more: int
    ) -> None:
        """No part of the budget is left while somebody wants it."""
        budget = len(line) + more
        wanted = sum(one.tokens for one in line)
        assert sum(policy.share(line, budget)) == min(budget, wanted)

    @pytest.mark.parametrize("policy", GREEDY)
    @given(line=lines, more=spare)
    def test_answers_go_before_prompts(
        self, policy: SchedulingPolicy, line: list[Waiting], more: int
    ) -> None:
        """A prompt gets tokens only when every answer has all that it wants."""
        shares = policy.share(line, len(line) + more)
        pairs = list(zip(line, shares, strict=True))
        if any(share for one, share in pairs if not one.running):
            assert all(share == one.tokens for one, share in pairs if one.running)


class TestParallel:
    def test_prompts_share_evenly(self) -> None:
        """What is left after the answers is divided equally between the prompts."""
        line = [prompt(30), answer(), prompt(30), prompt(30)]
        assert Parallel().share(line, 13) == [4, 1, 4, 4]

    def test_what_one_does_not_need_others_get(self) -> None:
        """A short prompt leaves its part to the long ones."""
        assert Parallel().share([prompt(2), prompt(30), prompt(30)], 12) == [2, 5, 5]

    @given(line=lines, more=spare)
    def test_the_urgent_get_no_less(self, line: list[Waiting], more: int) -> None:
        """Of two who want the same the more urgent never gets less."""
        shares = Parallel().share(line, len(line) + more)
        for one, part in zip(line, shares, strict=True):
            for other, its in zip(line, shares, strict=True):
                same = (one.tokens, one.running) == (other.tokens, other.running)
                if same and one.priority > other.priority:
                    assert part >= its

    def test_who_waited_longest_gets_the_odd_token(self) -> None:
        """Of equals the one whose last step is longest ago goes first."""
        assert Parallel().share([prompt(served=2), prompt(served=1)], 3) == [1, 2]

    @given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 5))
    def test_nobody_starves(self, tokens: list[int], budget: int) -> None:
        """Even with less room than there are prompts each comes to its end."""
        left, served = list(tokens), [0] * len(tokens)
        for step in range(1, 2 + sum(tokens)):
            open_ = [n for n, count in enumerate(left) if count]
            if not open_:
                break
            line = [prompt(left[n], served=served[n]) for n in open_]
            for n, share in zip(open_, Parallel().share(line, budget), strict=True):
                left[n] -= share
                served[n] = step if share else served[n]
        assert left == [0] * len(tokens)


class TestFirstInFirstOut:
    def test_the_first_prompt_gets_all(self) -> None:
        """The prompt that came first is read before the next one begins."""
        assert FirstInFirstOut().share([prompt(8), prompt(8)], 10) == [8, 2]

    def test_priority_goes_before_arrival(self) -> None:
        """A more urgent prompt overtakes those that came before it."""
        line = [prompt(8), prompt(8, priority=1)]
        assert FirstInFirstOut().share(line, 10) == [2, 8]


class TestOneAtATime:
    @given(line=lines, more=spare)
    def test_one_sequence_a_step(self, line: list[Waiting], more: int) -> None:
        """Exactly one sequence is served, as far as there is room."""
        shares = OneAtATime().share(line, len(line) + more)
        assert sum(share > 0 for share in shares) == 1

    @given(st.integers(1, 6), st.integers(1, 3))
    def test_round_robin(self, count: int, rounds: int) -> None:
        """Each of equals is served once before any is served again."""
        served = [0] * count
        for turn in range(rounds):
            seen = set()
            for step in range(count):
                line = [answer(served=last) for last in served]
                n = [share > 0 for share in OneAtATime().share(line, count)].index(True)
                served[n] = turn * count + step + 1
                seen.add(n)
            assert seen == set(range(count))

    def test_the_urgent_first(self) -> None:
        """A more urgent one is served before one that waited longer."""
        line = [answer(served=1), answer(priority=1, served=9)]
        assert OneAtATime().share(line, 2) == [0, 1]


class TestWholeInputs:
    @given(line=lines, more=spare)
    def test_all_or_nothing(self, line: list[Waiting], more: int) -> None:
        """After the first one each gets all of its tokens or none."""
        shares = WholeInputs().share(line, len(line) + more)
        rest = zip(line[1:], shares[1:], strict=True)
        assert all(share in (0, one.tokens) for one, share in rest)

    @given(line=lines, more=spare)
    def test_the_first_is_always_served(self, line: list[Waiting], more: int) -> None:
        """The first in line gets its part, so that everyone becomes the first."""
        budget = len(line) + more
        assert WholeInputs().share(line, budget)[0] == min(line[0].tokens, budget)


class TestChoice:
    @pytest.mark.parametrize(
        ("params", "kind"),
        [
            ({}, Parallel),
            ({"scheduling": "fifo"}, FirstInFirstOut),
            ({"deterministic": True, "scheduling": "fifo"}, OneAtATime),
            ({"embeddings": True}, WholeInputs),
        ],
    )
    def test_named(self, params: dict[str, Any], kind: type) -> None:
        """The parameters of a context name its policy."""
        assert type(policy_for(ContextParams(**params))) is kind

    def test_own(self) -> None:
        """A policy of the caller is used as it is."""
        own = Parallel()
        assert policy_for(ContextParams(scheduling=own)) is own


class Fixed:
    def __init__(self, shares: Any) -> None:
        self._shares = shares

    def share(self, waiting: Any, budget: int) -> Any:
        return self._shares


class TestChecked:
    @pytest.mark.parametrize(
        ("shares", "said"),
        [
            ([1], "1 numbers for 2 sequences"),
            ([11, 0], "to those who want"),
            ([-1, 2], "to those who want"),
            ([0, 0], "0 tokens in all"),
            ([10, 10], "20 tokens in all, which must be 1 to 12"),
        ],
    )
    def test_what_cannot_be(self, shares: list[int], said: str) -> None:
        """A policy that asks for what cannot be done is told so in a ValueError."""
        with pytest.raises(CallersError, match=f"Fixed.share gave .*{said}") as caught:
            checked_shares(Fixed(shares), [prompt(), prompt()], 12)
        assert isinstance(caught.value.original, ValueError)

    @pytest.mark.parametrize("shares", [None, [0.5, 1], ["1", 1]])
    def test_what_is_no_number(self, shares: Any) -> None:
        """Not even numbers: that is the policy's fault, not the engine's."""
        with pytest.raises(CallersError) as caught:
            checked_shares(Fixed(shares), [prompt(), prompt()], 12)
        assert isinstance(caught.value.original, ValueError | TypeError)
