"""
The messages of a conversation, and which of them the model is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from llmcore.errors import StateError

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


class SavedChat(NamedTuple):
    """What a state file holds of a conversation; see `ChatSession.save`."""

    history: tuple[Message, ...]
    forgotten: int
    template: str
    parts: tuple[str | int, ...]
    seen: tuple[int, ...]

    @classmethod
    def of(cls, chat: Mapping[str, Any] | None) -> Self:
        """
        Raises:
            StateError: The file holds no conversation, or not as one is saved.
        """
        if chat is None:
            raise StateError(
                "cannot load a conversation: the file holds only a sequence, load it "
                "with Sequence.load"
            )
        try:
            saved = cls(
                tuple(Message(role, content) for role, content in chat["history"]),
                chat["forgotten"],
                chat["template"],
                tuple(chat["parts"]),
                tuple(chat["seen"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"cannot load a conversation: {error!r}") from error
        texts = [text for message in saved.history for text in message]
        right = (
            all(isinstance(text, str) for text in (*texts, saved.template))
            and all(type(part) in (str, int) for part in saved.parts)
            and all(
                type(number) is int and number >= 0
                for number in (saved.forgotten, *saved.seen)
            )
        )
        if not right:
            raise StateError("cannot load a conversation: a value has a wrong type")
        return saved


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
