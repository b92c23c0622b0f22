"""
The plain state of one sequence of a context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import ref

from attrs import define, field


class Checkpoint(NamedTuple):
    """What a sequence was after its first ``length`` tokens, in the engine's bytes."""

    length: int
    state: bytes


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
    user: ref[Any] | None = None  # a user that was dropped or has ended does not count
    line: list[ref[Any]] = field(factory=list)  # who waits to be the next user
    logits: Any = None  # after the last token, if it was evaluated by hand
    checkpoints: list[Checkpoint] = field(factory=list)  # the shortest first

    @property
    def busy(self) -> bool:
        """Whether it has a user."""
        return self.user is not None and _active(self.user)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        self.line = [waiter for waiter in self.line if _active(waiter)]
        return len(self.line)


def _active(reference: ref[Any]) -> bool:
    user = reference()
    return user is not None and not user.ended
