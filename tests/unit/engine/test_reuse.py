"""What of a cache a prompt keeps, as the pure function that it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcore.engine.reuse import SHORTEST_MOVE, Reuse, common_prefix, plan_reuse

# Few different tokens, and long runs, so that prefixes and moves are common.
short = st.lists(st.integers(0, 2), max_size=12)
runs = st.lists(
    st.sampled_from([[0], [1], list(range(10)), list(range(20, 32))]), max_size=6
).map(lambda parts: [token for part in parts for token in part])
caches = st.one_of(short, runs)
prompts = caches.filter(bool)


def applied(plan: Reuse, cached: list[int]) -> list[int]:
    """What the cache holds after a plan was carried out."""
    after = plan.matched + plan.gap
    return cached[: plan.matched] + cached[after : after + plan.moved]


class TestAnyLists:
    @given(caches, prompts, st.booleans())
    @example([1, 2, 3], [1, 2, 3], False)
    def test_a_plan_gives_the_beginning_of_the_prompt(
        self, cached: list[int], prompt: list[int], move: bool
    ) -> None:
        """What a plan keeps and moves is how the prompt begins."""
        kept = applied(plan_reuse(cached, prompt, move=move), cached)
        assert kept == prompt[: len(kept)]

    @given(caches, prompts, st.booleans())
    def test_one_token_is_left(
        self, cached: list[int], prompt: list[int], move: bool
    ) -> None:
        """At least one token is left to evaluate."""
        assert len(applied(plan_reuse(cached, prompt, move=move), cached)) < len(prompt)

    @given(caches, prompts)
    def test_the_longest_prefix(self, cached: list[int], prompt: list[int]) -> None:
        """Without moves all that they have in common is kept, except a last token."""
        plan = plan_reuse(cached, prompt)
        assert plan.matched == min(common_prefix(cached, prompt), len(prompt) - 1)
        assert (plan.gap, plan.moved) == (0, 0)

    @given(caches, prompts)
    def test_moves_only_add(self, cached: list[int], prompt: list[int]) -> None:
        """Moving keeps no less in place, and moves nothing that is too short."""
        plan = plan_reuse(cached, prompt, move=True)
        assert plan.matched == plan_reuse(cached, prompt).matched
        assert plan.moved == 0 or plan.moved >= SHORTEST_MOVE
        assert (plan.moved == 0) == (plan.gap == 0)

    @given(caches, caches)
    def test_common_prefix(self, a: list[int], b: list[int]) -> None:
        """The common prefix is equal in both, and what follows is not."""
        n = common_prefix(a, b)
        assert a[:n] == b[:n]
        assert n in (len(a), len(b)) or a[n] != b[n]


class TestReasons:
    @pytest.mark.parametrize(
        ("cached", "prompt", "reason"),
        [
            ([], [1], "the sequence was empty"),
            ([1, 2], [1, 2, 3], "everything cached was kept"),
            ([1, 2, 3], [1, 2], "the whole prompt was cached, its last token"),
            ([1, 2, 3], [1, 5, 3], "the first difference is at token 1"),
        ],
    )
    def test_why(self, cached: list[int], prompt: list[int], reason: str) -> None:
        """The plan says why it does not keep more."""
        assert plan_reuse(cached, prompt).reason.startswith(reason)

    def test_what_was_moved(self) -> None:
        """A plan that moves says how much, over what gap."""
        run = list(range(10, 20))
        plan = plan_reuse([1, 2, 3, *run], [1, *run, 9], move=True)
        assert plan[:3] == (1, 2, 10)
        assert plan.reason.endswith("10 tokens after a gap of 2 were moved")

    def test_a_short_run_stays(self) -> None:
        """A run that is shorter than worthwhile is not moved."""
        run = list(range(10, 10 + SHORTEST_MOVE - 1))
        assert plan_reuse([1, 2, *run], [1, *run, 9], move=True).moved == 0
