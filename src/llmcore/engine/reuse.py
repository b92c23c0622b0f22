"""
The decision what of a cache a prompt can keep: pure functions on lists of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SHORTEST_MOVE = 8
"""Fewer tokens than this are not worth moving: they may be alike by accident."""


class Reuse(NamedTuple):
    """
    What to keep of a cache.

    Attributes:
        matched: Tokens kept in place, from the start.

        gap: Tokens after them that are removed.

        moved: Tokens after the gap that are moved to its place.

        reason: Why it is not more.
    """

    matched: int
    gap: int
    moved: int
    reason: str


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two lists have in common from the start."""
    length = min(len(a), len(b))
    if list(a[:length]) == list(b[:length]):
        return length
    return next(i for i in range(length) if a[i] != b[i])


def plan_reuse(
    cached: Sequence[int], prompt: Sequence[int], *, move: bool = False
) -> Reuse:
    """
    What of a cache a prompt can keep.

    One token is always left to evaluate, because logits come from evaluating.

    Args:
        cached: What the cache holds.

        prompt: What it is to hold.

        move: Whether tokens after a gap may be moved. They keep what they have seen of
            the gap, so this is an approximation.
    """
    if not cached:
        return Reuse(0, 0, 0, "the sequence was empty")
    shared = common_prefix(cached, prompt)
    if shared == len(prompt):
        reason = "the whole prompt was cached, its last token is evaluated"
        return Reuse(shared - 1, 0, 0, reason)
    if shared == len(cached):
        return Reuse(shared, 0, 0, "everything cached was kept")
    reason = f"the first difference is at token {shared}"
    if move:
        gap, moved = _find_moved(cached, prompt, shared)
        if moved:
            reason += f", {moved} tokens after a gap of {gap} were moved"
            return Reuse(shared, gap, moved, reason)
    return Reuse(shared, 0, 0, reason)


def _find_moved(
    cached: Sequence[int], prompt: Sequence[int], shared: int
) -> tuple[int, int]:
    """The first run after ``shared`` that goes on as the prompt does."""
    wanted = prompt[shared:-1]
    for start in range(shared + 1, len(cached) - SHORTEST_MOVE + 1):
        if cached[start] != prompt[shared]:
            continue
        length = common_prefix(cached[start:], wanted)
        if length >= SHORTEST_MOVE:
            return start - shared, length
    return 0, 0
