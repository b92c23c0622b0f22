"""
The messages of a conversation, and which of them the model is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


Overflow = (
    Literal["error", "shorten"]
    | Callable[[list[Message], Callable[[Sequence[Message]], bool]], Sequence[Message]]
)
"""What to do when a conversation does not fit; see `ChatSession`."""


class Shortener:
    """
    Decides which messages fit; lives as long as its session.

    Args:
        overflow: See `ChatSession`.
    """

    def __init__(self, overflow: Overflow) -> None:
        if overflow not in ("error", "shorten") and not callable(overflow):
            raise ValueError(
                f"overflow must be 'error', 'shorten' or a callable, got {overflow!r}"
            )
        self._overflow = overflow
        self.forgotten = 0

    def shown(
        self,
        messages: list[Message],
        count: Callable[[Sequence[Message]], int],
        size: int,
        room: int,
    ) -> list[Message]:
        """
        The messages to show; all of them if that cannot be helped.

        Args:
            messages: The system message, if there is one, and the turns.

            count: How many tokens some messages are.

            size: Most tokens that can be evaluated.

            room: Most tokens of a prompt that leaves room for an answer.
        """
        if self._overflow == "error":
            return messages
        if callable(self._overflow):
            if count(messages) <= room:
                shown = messages
            else:
                shown = list(self._overflow(messages, lambda m: count(m) <= room))
        else:
            shown = self._without_oldest(messages, count, room)
        self.forgotten = len(messages) - len(shown)
        return shown

    def _without_oldest(
        self,
        messages: list[Message],
        count: Callable[[Sequence[Message]], int],
        room: int,
    ) -> list[Message]:
        """
        Without as many of the oldest turns as need be.

        What was left out once stays out, and then some more goes than must: each time
        the beginning changes, all that follows has to be evaluated again.
        """
        system = messages[:1] if messages[0].role == "system" else []
        turns = messages[len(system) :]
        starts = [n for n, message in enumerate(turns) if message.role == "user"]
        starts = [n for n in starts if n >= self.forgotten] or starts[-1:]
        if count([*system, *turns[starts[0] :]]) > room:
            enough = [
                n for n in starts if count([*system, *turns[n:]]) <= room * 2 // 3
            ]
            fits = [n for n in starts if count([*system, *turns[n:]]) <= room]
            starts = enough or fits or starts[-1:]
        return [*system, *turns[starts[0] :]]
