"""
The plain state of one sequence of a context, and the decision what of it to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

from attrs import define, field, frozen


@define(eq=False)
class Slot:
    """
    One taken sequence number; a new object each time the number is taken.

    ``tokens`` mirrors the engine's cache. ``pending`` is what was handed to the engine
    and has not come back: while it is not empty the mirror is a guess, and the engine's
    own positions decide before the next use.
    """

    number: int
    tokens: list[int] = field(factory=list)
    pending: Sequence[int] = ()
    user: ref[Any] | None = None  # a user that was dropped does not count
    logits: Any = None  # after the last token, if it was evaluated by hand

    @property
    def busy(self) -> bool:
        """Whether it has a user."""
        return self.user is not None and self.user() is not None


@frozen(kw_only=True)
class CacheReport:
    """
    How much of a prompt was in the cache already, in tokens, and why not more.

    ``reused + evaluated`` is the length of the prompt; at least one is evaluated.
    """

    reused: int
    evaluated: int
    reason: str


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two lists have in common from the start."""
    length = min(len(a), len(b))
    if list(a[:length]) == list(b[:length]):
        return length
    return next(i for i in range(length) if a[i] != b[i])


def reusable(cached: Sequence[int], prompt: Sequence[int]) -> tuple[int, str]:
    """
    How many cached tokens a prompt can keep, and why it is not more.

    One token is always left to evaluate, because logits come from evaluating.
    """
    if not cached:
        return 0, "the sequence was empty"
    shared = common_prefix(cached, prompt)
    if shared == len(prompt):
        return shared - 1, "the whole prompt was cached, its last token is evaluated"
    if shared == len(cached):
        return shared, "everything cached was kept"
    return shared, f"the first difference is at token {shared}"
