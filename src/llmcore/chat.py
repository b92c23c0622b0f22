"""
`ChatSession`: a conversation on a sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llmcore.engine.generation import GenerationResult
from llmcore.engine.slot import CacheReport
from llmcore.lifecycle import Resource
from llmcore.sequence import Sequence as TokenSequence
from llmcore.stream import Stream
from llmcore.values import SamplingParams, merge

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


class ChatSession(Resource):
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
    ) -> None:
        sequence._check()
        model = sequence.context.model
        self.sequence = sequence
        self._template = (
            model.chat_template
            if chat_template is None
            else model.make_chat_template(chat_template)
        )
        self._opening = (
            [] if system_prompt is None else [Message("system", system_prompt)]
        )
        self._history = list(self._opening)
        self._seen = _Seen((), ())
        self._report: CacheReport | None = None
        super().__init__("chat", parent=sequence)
        if own_sequence:
            sequence.move_to(self)

    # -- history -----------------------------------------------------------------------

    @property
    def history(self) -> list[Message]:
        """All messages so far, the system prompt first; a copy."""
        self._check()
        return list(self._history)

    def set_history(
        self, messages: Iterable[Message | tuple[Role, str] | Mapping[str, Any]]
    ) -> None:
        """
        Replace the history; the next turn reuses what still fits.

        Args:
            messages: Each a `Message`, a pair, or a dict of ``role`` and ``content``.
        """
        self._check()
        self._history = [
            Message(**m) if isinstance(m, Mapping) else Message(*m) for m in messages
        ]

    def reset(self) -> None:
        """Start the conversation again, from the system prompt."""
        self._check()
        self._history = list(self._opening)

    @property
    def cache_report(self) -> CacheReport | None:
        """What the last finished turn found in the cache; None before the first."""
        self._check()
        return self._report

    # -- turns -------------------------------------------------------------------------

    def prompt(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        **fields: Any,
    ) -> str:
        """
        Say something and wait for the whole answer.

        Args:
            text: Any text; none of it can become a control token.

            params: How to choose tokens.

            max_tokens: End the answer after so many.

            stop: End the answer before this text, or the earliest of these.

            fields: Or the fields of `SamplingParams` one by one, over ``params``.

        Raises:
            ContextOverflowError: The conversation does not fit; nothing was changed.

            SequenceBusyError: Something else runs on the sequence.
        """
        return self.stream(
            text, params, max_tokens=max_tokens, stop=stop, **fields
        ).result.text

    async def aprompt(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        **fields: Any,
    ) -> str:
        """`prompt` without blocking the event loop; a cancelled task ends the turn."""
        stream = self.stream(text, params, max_tokens=max_tokens, stop=stop, **fields)
        async with stream:
            async for _ in stream:
                pass
        return stream.result.text

    def stream(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        **fields: Any,
    ) -> Stream:
        """
        Say something and read the answer as it is made; arguments as for `prompt`.

        The turn becomes history when the answer ends. A stream that is dropped,
        cancelled or fails leaves no trace; `Stream.stop` keeps what there is.
        """
        self._check()
        params = merge(SamplingParams, params, fields)
        before = list(self._history)
        messages = [*before, Message("user", text)]
        parts = self._render(messages)
        prompt = self._seen.extend(self.sequence.context.model, parts)

        def finished(result: GenerationResult) -> None:
            self._report = result.cache
            self._seen = _Seen(_append(parts, result.text), (*prompt, *result.tokens))
            # A history set by hand while the answer ran is the user's last word.
            if self._history == before:
                self._history = [*messages, Message("assistant", result.text)]

        return self.sequence._stream(
            prompt, params, max_tokens=max_tokens, stop=stop, on_result=finished
        )

    def _render(self, messages: Sequence[Message]) -> tuple[str | int, ...]:
        return tuple(self._template.render([m._asdict() for m in messages]))


class _Seen(NamedTuple):
    """
    The conversation as the model has seen it: as text parts, and as the tokens that it
    read and drew.

    The model may have drawn an answer in other tokens than its text would be split
    into. Reusing the tokens that were really drawn keeps the cache valid to the end.
    """

    parts: tuple[str | int, ...]
    tokens: tuple[int, ...]

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


def _append(parts: tuple[str | int, ...], text: str) -> tuple[str | int, ...]:
    """Parts with a text at the end, joined to the last text as a template does."""
    if parts and isinstance(parts[-1], str):
        return (*parts[:-1], parts[-1] + text)
    return (*parts, text) if text else parts
