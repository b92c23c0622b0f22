"""
Who shares a step of the engine.

A policy says how many tokens of each sequence that waits go into the next batch. Core
does the rest: it keeps the batch within its limits, and a sequence that was given fewer
tokens than it wants waits on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from llmcore.engine.callers import CallersError, call
from llmcore.values import ContextParams


class Waiting(NamedTuple):
    """
    A sequence that waits for the engine.

    Attributes:
        tokens: How many it wants evaluated, 1 or more.

        running: Whether it is in the middle of an answer: somebody reads along.

        priority: Higher is more urgent.

        served: Number of the step that last served it, 0 if none did.
    """

    tokens: int
    running: bool
    priority: int
    served: int


class SchedulingPolicy(Protocol):
    """
    Decides about each step, unless one answer alone goes on by a token.

    Called on the engine's thread; must be quick.
    """

    def share(self, waiting: Sequence[Waiting], budget: int) -> Sequence[int]:
        """
        How many tokens each may have evaluated in the next step.

        Args:
            waiting: In the order of arrival; at least one.

            budget: Most tokens of the step; not less than there are sequences.

        Returns:
            A number for each, 0 to its ``tokens``, together at most ``budget`` and at
            least 1.
        """


class Parallel:
    """Everyone gets a part: first those that answer, then the prompts, evenly."""

    def share(self, waiting: Sequence[Waiting], budget: int) -> Sequence[int]:
        """See `SchedulingPolicy`."""
        if sum(w.tokens for w in waiting) <= budget:
            return [w.tokens for w in waiting]
        shares = [0] * len(waiting)
        running = [n for n, w in enumerate(waiting) if w.running]
        prompts = [n for n, w in enumerate(waiting) if not w.running]
        budget = _evenly(waiting, shares, running, budget)
        _evenly(waiting, shares, prompts, budget)
        return shares


class FirstInFirstOut:
    """Those that answer first; then whole prompts, by priority and arrival."""

    def share(self, waiting: Sequence[Waiting], budget: int) -> Sequence[int]:
        """See `SchedulingPolicy`."""
        shares = [0] * len(waiting)
        running = [n for n, w in enumerate(waiting) if w.running]
        budget = _evenly(waiting, shares, running, budget)
        prompts = (n for n, w in enumerate(waiting) if not w.running)
        for n in sorted(prompts, key=lambda n: -waiting[n].priority):
            shares[n] = min(budget, waiting[n].tokens)
            budget -= shares[n]
        return shares


class OneAtATime:
    """One sequence a step, the one that waited longest: neighbours change nothing."""

    def share(self, waiting: Sequence[Waiting], budget: int) -> Sequence[int]:
        """See `SchedulingPolicy`."""
        order = sorted(
            range(len(waiting)), key=lambda n: (-waiting[n].priority, waiting[n].served)
        )
        return _only(waiting, order[0], budget)


class WholeInputs:
    """Whole inputs only, as many as fit: an embedding needs all of its text at once."""

    def share(self, waiting: Sequence[Waiting], budget: int) -> Sequence[int]:
        """See `SchedulingPolicy`."""
        shares = list(_only(waiting, 0, budget))
        budget -= shares[0]
        for n, one in enumerate(waiting[1:], start=1):
            if one.tokens <= budget:
                shares[n] = one.tokens
                budget -= one.tokens
        return shares


def _only(waiting: Sequence[Waiting], n: int, budget: int) -> list[int]:
    shares = [0] * len(waiting)
    shares[n] = min(waiting[n].tokens, budget)
    return shares


def _evenly(
    waiting: Sequence[Waiting], shares: list[int], numbers: Iterable[int], budget: int
) -> int:
    """Share out a budget; what some do not need, others get. Returns what is left."""
    # The most urgent first, and of equals those that wait longest.
    hungry = sorted(numbers, key=lambda n: (-waiting[n].priority, waiting[n].served))
    while hungry and budget > 0:
        part = max(1, budget // len(hungry))
        for n in hungry:
            more = min(part, waiting[n].tokens - shares[n], budget)
            shares[n] += more
            budget -= more
        hungry = [n for n in hungry if shares[n] < waiting[n].tokens]
    return budget


def policy_for(params: ContextParams) -> SchedulingPolicy:
    """The policy that a context was created with."""
    if params.embeddings:
        return WholeInputs()
    if params.deterministic:
        return OneAtATime()
    named: dict[Any, SchedulingPolicy] = {
        "parallel": Parallel(),
        "fifo": FirstInFirstOut(),
    }
    if isinstance(params.scheduling, str):
        return named[params.scheduling]
    policy: SchedulingPolicy = params.scheduling
    return policy


def checked_shares(
    policy: SchedulingPolicy, waiting: Sequence[Waiting], budget: int
) -> Sequence[int]:
    """
    What a policy says, if core can do that.

    Raises:
        CallersError: It cannot; says why.
    """
    shares = call(lambda: list(policy.share(waiting, budget)))
    wrong = ""
    if not all(isinstance(share, int) for share in shares):
        wrong = f"{shares}, which are not whole numbers"
    elif len(shares) != len(waiting):
        wrong = f"{len(shares)} numbers for {len(waiting)} sequences"
    elif any(not 0 <= n <= w.tokens for n, w in zip(shares, waiting, strict=True)):
        wrong = f"{shares} to those who want {[w.tokens for w in waiting]} tokens"
    elif not 1 <= sum(shares) <= budget:
        wrong = f"{sum(shares)} tokens in all, which must be 1 to {budget}"
    if wrong:
        error = ValueError(f"{type(policy).__name__}.share gave {wrong}")
        raise CallersError(error)
    return shares
