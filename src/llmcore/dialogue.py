"""
`Dialogue`: from messages to a prompt, and what the model has read of them already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from llmcore.chat_history import Message, Overflow, Shortener
from llmcore.engine.generation import GenerationRequest, GenerationResult
from llmcore.engine.reasoning import ReasoningMarks
from llmcore.errors import ContextOverflowError
from llmcore.events import CacheReport
from llmcore.sequence import Sequence as TokenSequence
from llmcore.stream import Stream
from llmcore.values import SamplingParams, merge_options


class Seen(NamedTuple):
    """
    The conversation as the model has seen it: as text parts, and as the tokens that it
    read and drew.

    The model may have drawn an answer in other tokens than its text would be split
    into. Reusing the tokens that were really drawn keeps the cache valid to the end.
    """

    parts: tuple[str | int, ...] = ()
    tokens: tuple[int, ...] = ()

    def extend(self, model: Any, parts: tuple[str | int, ...]) -> list[int]:
        """Tokens of a conversation that perhaps goes on from this one."""
        known = len(self.parts)
        continues = parts[:known] == self.parts and (
            len(parts) == known or isinstance(parts[known], int)
        )
        if known and continues:
            return [*self.tokens, *model.encode(parts[known:])]
        tokens: list[int] = model.encode(parts)
        bos = model.info.bos_token
        if model.info.add_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens


class Dialogue:
    """
    Lives as long as the `Chat` or `ChatSession` that asks through it.

    Args:
        sequence: Where to run.

        chat_template: A Jinja template to use instead of the model's own.

        overflow: See `ChatSession`.

    Raises:
        ChatTemplateError: The model has no template and none was given.
    """

    def __init__(
        self, sequence: TokenSequence, chat_template: str | None, overflow: Overflow
    ) -> None:
        sequence._check()
        self._model = model = sequence.context.model
        self._sequence = sequence
        self._template = (
            model.chat_template
            if chat_template is None
            else model.make_chat_template(chat_template)
        )
        self.shortener = Shortener(overflow)
        self.seen = Seen()
        self.report: CacheReport | None = None

    @property
    def template_digest(self) -> str:
        """Tells one template from another."""
        return hashlib.sha256(self._template.source.encode()).hexdigest()

    def ask(
        self,
        messages: Callable[[], list[Message]],
        params: SamplingParams | None,
        options: dict[str, Any],
        on_answer: Callable[[list[Message], str], object] = lambda messages, text: None,
    ) -> Stream:
        """
        Have the model answer.

        Args:
            messages: Says what to answer to, when it is this turn's turn.

            params: How to choose tokens.

            options: See `Sequence.generate`.

            on_answer: Called with the messages and the answer, when it was read to its
                end.
        """
        sampling, more = merge_options(params, options)
        turn = _Turn(self, messages, more.max_tokens, on_answer)
        # In line behind another turn: what to ask is known when that one has ended.
        prompt = turn.begin if more.wait else turn.begin()
        size = self._sequence.size
        if not callable(prompt) and len(prompt) > size:
            raise ContextOverflowError(len(prompt), size)
        request = GenerationRequest(
            prompt=prompt,
            sampling=sampling,
            options=more,
            marks=self._marks,
            operation="chat",
        )
        return self._sequence._stream(request, turn.end)

    def render(self, messages: Sequence[Message]) -> tuple[str | int, ...]:
        """The prompt as the template writes it: text, and numbers of control tokens."""
        return tuple(self._template.render([m._asdict() for m in messages]))

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt in tokens."""
        return self.seen.extend(self._model, self.render(messages))

    def shown(self, messages: list[Message], reserve: int | None) -> list[Message]:
        """Those of them that the model is shown, with room for so long an answer."""
        size = self._sequence.size
        room = size - min(reserve or size // 4, size // 2)
        return self.shortener.shown(
            messages, lambda some: len(self.tokens(some)), size, room
        )

    @cached_property
    def _marks(self) -> ReasoningMarks | None:
        """How the model marks what it thinks, as its template tells."""
        if "<think>" not in self._template.source:
            return None
        special = self._model.info.special_tokens
        begin, end = special.get("<think>"), special.get("</think>")
        last = self.render([Message("user", "?")])[-1]
        inside = last == begin or str(last).rstrip().endswith("<think>")
        return ReasoningMarks(begin_token=begin, end_token=end, inside=inside)


class _Turn:
    """One turn of a conversation, from its prompt to its answer."""

    def __init__(
        self,
        dialogue: Dialogue,
        messages: Callable[[], list[Message]],
        reserve: int | None,
        on_answer: Callable[[list[Message], str], object],
    ) -> None:
        self._dialogue = dialogue
        self._ask = messages
        self._reserve = reserve
        self._on_answer = on_answer

    def begin(self) -> list[int]:
        """The prompt: the conversation as the model is shown it."""
        self._messages = self._ask()
        shown = self._dialogue.shown(self._messages, self._reserve)
        self._parts = self._dialogue.render(shown)
        self._prompt = self._dialogue.tokens(shown)
        return self._prompt

    def end(self, result: GenerationResult) -> None:
        """The answer is complete, and was read."""
        self._dialogue.report = result.cache
        if result.reasoning:  # a template leaves that out when it looks back
            self._dialogue.seen = Seen()
        else:
            parts = _append(self._parts, result.text)
            self._dialogue.seen = Seen(parts, (*self._prompt, *result.tokens))
        self._on_answer(self._messages, result.text)


def _append(parts: tuple[str | int, ...], text: str) -> tuple[str | int, ...]:
    """Parts with a text at the end, joined to the last text as a template does."""
    if parts and isinstance(parts[-1], str):
        return (*parts[:-1], parts[-1] + text)
    return (*parts, text) if text else parts
