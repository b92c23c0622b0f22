"""
`ChatSession`: a conversation on a sequence; `Chat`: the same without a memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from llmcore.chat_history import Message, Overflow, Role, SavedChat
from llmcore.dialogue import Dialogue, Seen
from llmcore.events import CacheReport
from llmcore.lifecycle import Resource
from llmcore.sequence import Sequence as TokenSequence
from llmcore.state_file import OnMismatch, Path
from llmcore.stream import Stream, answer_of
from llmcore.twins import twin
from llmcore.values import SamplingParams

AnyMessage = Message | tuple[Role, str] | Mapping[str, Any]
"""A `Message`, a pair, or a dict of ``role`` and ``content``."""


class _Talk(Resource):
    """What both have in common."""

    def __init__(
        self,
        sequence: TokenSequence,
        chat_template: str | None,
        overflow: Overflow,
        own_sequence: bool,
    ) -> None:
        self.sequence = sequence
        self._dialogue = Dialogue(sequence, chat_template, overflow)
        super().__init__("chat", parent=sequence)
        if own_sequence:
            sequence.move_to(self)

    @property
    def forgotten(self) -> int:
        """How many of the messages the model was not shown in the last turn."""
        self._check()
        return self._dialogue.shortener.forgotten

    @property
    def cache_report(self) -> CacheReport | None:
        """What the last finished turn found in the cache; None before the first."""
        self._check()
        return self._dialogue.report


class Chat(_Talk):
    """
    Answers conversations that somebody else keeps; lives until it or its sequence is
    disposed. What two conversations have in common is not evaluated twice.

    Args:
        sequence: Where to run; what it holds is reused where it fits.

        chat_template: A Jinja template to use instead of the model's own.

        own_sequence: Dispose the sequence together with this object.

        overflow: See `ChatSession`.

    Raises:
        ChatTemplateError: The model has no template and none was given.
    """

    def __init__(
        self,
        sequence: TokenSequence,
        *,
        chat_template: str | None = None,
        own_sequence: bool = False,
        overflow: Overflow = "error",
    ) -> None:
        super().__init__(sequence, chat_template, overflow, own_sequence)

    def prompt(
        self,
        messages: Iterable[AnyMessage],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> str:
        """
        The answer to a conversation; arguments and errors as for `ChatSession.prompt`.

        Args:
            messages: All of it, the last one by the user.

            params: How to choose tokens.

            options: See `Sequence.generate`.
        """
        return self.stream(messages, params, **options).result.text

    async def aprompt(
        self,
        messages: Iterable[AnyMessage],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> str:
        """`prompt` without blocking the event loop; a cancelled task ends the turn."""
        return await answer_of(partial(self.stream, messages, params, **options))

    def stream(
        self,
        messages: Iterable[AnyMessage],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> Stream:
        """`prompt`, read as the answer is made."""
        self._check()
        asked = _messages(messages)
        self._dialogue.shortener.forgotten = 0  # it may be another conversation
        return self._dialogue.ask(lambda: asked, params, options)

    def tokens(self, messages: Iterable[AnyMessage]) -> list[int]:
        """The prompt that a conversation comes to."""
        self._check()
        return self._dialogue.tokens(_messages(messages))


class ChatSession(_Talk):
    """
    Lives until it or its sequence is disposed; does not own the sequence unless told.

    The sequence need not be empty: what it holds is reused where it fits and dropped
    where it does not. A turn that fails or is cancelled leaves the history as it was.
    One turn at a time; from any thread.

    Args:
        sequence: Where to run.

        system_prompt: The first message, for the model only.

        chat_template: A Jinja template to use instead of the model's own.

        own_sequence: Dispose the sequence together with this session.

        overflow: When the conversation does not fit any more: ``"error"`` raises
            `ContextOverflowError`; ``"shorten"`` shows the model fewer of the oldest
            turns, and always the system message; or a callable that is given the
            messages and a function which tells whether some messages fit, and returns
            the messages to show. The history stays whole.

    Raises:
        ChatTemplateError: The model has no template and none was given.
    """

    def __init__(
        self,
        sequence: TokenSequence,
        *,
        system_prompt: str | None = None,
        chat_template: str | None = None,
        own_sequence: bool = False,
        overflow: Overflow = "error",
    ) -> None:
        self._opening = (
            [] if system_prompt is None else [Message("system", system_prompt)]
        )
        self._history = list(self._opening)
        super().__init__(sequence, chat_template, overflow, own_sequence)

    # -- history -----------------------------------------------------------------------

    @property
    def history(self) -> list[Message]:
        """All messages so far, the system prompt first; a copy."""
        self._check()
        return list(self._history)

    def set_history(self, messages: Iterable[AnyMessage]) -> None:
        """Replace the history; the next turn reuses what still fits."""
        self._check()
        self._history = _messages(messages)
        self._dialogue.shortener.forgotten = 0

    def reset(self) -> None:
        """Start the conversation again, from the system prompt."""
        self._check()
        self._history = list(self._opening)
        self._dialogue.shortener.forgotten = 0

    # -- turns -------------------------------------------------------------------------

    def prompt(
        self, text: str, params: SamplingParams | None = None, **options: Any
    ) -> str:
        """
        Say something and wait for the whole answer.

        Args:
            text: Any text; none of it can become a control token.

            params: How to choose tokens.

            options: The fields of `GenerationParams`, such as ``max_tokens``, and those
                of `SamplingParams`, over ``params``.

        Raises:
            ContextOverflowError: The conversation does not fit; nothing was changed.

            SequenceBusyError: Something else runs on the sequence, and ``wait`` was not
                said.
        """
        return self.stream(text, params, **options).result.text

    async def aprompt(
        self, text: str, params: SamplingParams | None = None, **options: Any
    ) -> str:
        """`prompt` without blocking the event loop; a cancelled task ends the turn."""
        return await answer_of(partial(self.stream, text, params, **options))

    def stream(
        self, text: str, params: SamplingParams | None = None, **options: Any
    ) -> Stream:
        """
        Say something and read the answer as it is made; arguments as for `prompt`.

        The turn becomes history when the answer was read to its end. A stream that is
        dropped, cancelled or fails leaves no trace; `Stream.stop` keeps what there is.
        """
        self._check()
        said = Message("user", text)
        return self._dialogue.ask(
            lambda: [*self._history, said], params, options, self._remember
        )

    def _remember(self, messages: list[Message], answer: str) -> None:
        # A history set by hand while the answer ran is the user's last word.
        if self._history == messages[:-1]:
            self._history = [*messages, Message("assistant", answer)]

    # -- on disk -----------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the conversation to a file; as `Sequence.save`, with the history."""
        self._check()
        seen = self._dialogue.seen
        chat = {
            "history": [list(message) for message in self._history],
            "forgotten": self._dialogue.shortener.forgotten,
            "template": self._dialogue.template_digest,
            "parts": list(seen.parts),
            "seen": list(seen.tokens),
        }
        self.sequence._save(path, chat)

    def load(self, path: Path, *, on_mismatch: OnMismatch = "error") -> None:
        """
        Go on with a saved conversation; arguments and errors as for `Sequence.load`.

        With another chat template the history is the same, and the next turn evaluates
        it as that template writes it.

        Raises:
            StateError: Also if the file holds a sequence without a conversation.
        """
        self._check()
        chats: list[SavedChat] = []
        self.sequence._load(
            path, on_mismatch, lambda saved: chats.append(SavedChat.of(saved.chat))
        )
        (chat,) = chats
        self._history = list(chat.history)
        self._dialogue.shortener.forgotten = chat.forgotten
        same = chat.template == self._dialogue.template_digest
        self._dialogue.seen = Seen(chat.parts, chat.seen) if same else Seen()

    asave = twin(save)
    aload = twin(load)


def _messages(messages: Iterable[AnyMessage]) -> list[Message]:
    return [Message(**m) if isinstance(m, Mapping) else Message(*m) for m in messages]
