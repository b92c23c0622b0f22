"""
`ChatSession`: a conversation on a sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from llmcore.chat_history import Message, Overflow, Role, SavedChat, Shortener
from llmcore.engine.generation import GenerationRequest, GenerationResult
from llmcore.engine.reasoning import ReasoningMarks
from llmcore.errors import ContextOverflowError
from llmcore.events import CacheReport
from llmcore.lifecycle import Resource
from llmcore.on_disk import OnDisk, OnMismatch, Path
from llmcore.sequence import Sequence as TokenSequence
from llmcore.stream import Stream
from llmcore.values import SamplingParams, merge_options


class ChatSession(Resource, OnDisk):
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
        self._shortener = Shortener(overflow)
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
    def forgotten(self) -> int:
        """How many messages of the history the model was not shown in the last turn."""
        self._check()
        return self._shortener.forgotten

    @property
    def cache_report(self) -> CacheReport | None:
        """What the last finished turn found in the cache; None before the first."""
        self._check()
        return self._report

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
        from anyio import to_thread

        stream = await to_thread.run_sync(partial(self.stream, text, params, **options))
        async with stream:
            async for _ in stream:
                pass
        return stream.result.text

    def stream(
        self, text: str, params: SamplingParams | None = None, **options: Any
    ) -> Stream:
        """
        Say something and read the answer as it is made; arguments as for `prompt`.

        The turn becomes history when the answer was read to its end. A stream that is
        dropped, cancelled or fails leaves no trace; `Stream.stop` keeps what there is.
        """
        self._check()
        sampling, more = merge_options(params, options)
        turn = _Turn(self, text, more.max_tokens)
        # In line behind another turn: what to ask is known when that one has ended.
        prompt = turn.begin if more.wait else turn.begin()
        if not callable(prompt) and len(prompt) > self.sequence.size:
            raise ContextOverflowError(len(prompt), self.sequence.size)
        request = GenerationRequest(
            prompt=prompt, sampling=sampling, options=more, marks=self._marks
        )
        return self.sequence._stream(request, turn.end)

    # -- on disk -----------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the conversation to a file; as `Sequence.save`, with the history."""
        self._check()
        chat = {
            "history": [list(message) for message in self._history],
            "template": self._template_digest,
            "parts": list(self._seen.parts),
            "seen": list(self._seen.tokens),
        }
        self.sequence._save(path, chat)

    def load(self, path: Path, *, on_mismatch: OnMismatch = "error") -> None:
        """
        Go on with a saved conversation; arguments and errors as for `Sequence.load`.

        With another chat template the history is the same, and the next turn evaluates
        it as that template writes it.
        """
        self._check()
        saved: list[SavedChat] = []
        self.sequence._load(
            path, on_mismatch, lambda state: saved.append(SavedChat.of(state.chat))
        )
        self._history = list(saved[0].history)
        same = saved[0].template == self._template_digest
        self._seen = _Seen(saved[0].parts, saved[0].seen) if same else _Seen((), ())

    @property
    def _template_digest(self) -> str:
        return hashlib.sha256(self._template.source.encode()).hexdigest()

    # -- inside ------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message]) -> tuple[str | int, ...]:
        return tuple(self._template.render([m._asdict() for m in messages]))

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        return self._seen.extend(self.sequence.context.model, self._render(messages))

    @cached_property
    def _marks(self) -> ReasoningMarks | None:
        """How the model marks what it thinks, as its template tells."""
        if "<think>" not in self._template.source:
            return None
        special = self.sequence.context.model.info.special_tokens
        begin, end = special.get("<think>"), special.get("</think>")
        last = self._render([Message("user", "?")])[-1]
        inside = last == begin or str(last).rstrip().endswith("<think>")
        return ReasoningMarks(begin_token=begin, end_token=end, inside=inside)


class _Turn:
    """One turn of a conversation, from its prompt to its place in the history."""

    def __init__(self, session: ChatSession, text: str, reserve: int | None) -> None:
        self._session = session
        self._text = text
        self._reserve = reserve

    def begin(self) -> list[int]:
        """The prompt: the conversation as the model is shown it, and what is new."""
        session = self._session
        size = session.sequence.size
        self._before = list(session._history)
        self._messages = [*self._before, Message("user", self._text)]
        room = size - min(self._reserve or size // 4, size // 2)
        shown = session._shortener.shown(
            self._messages, lambda some: len(session._tokens(some)), size, room
        )
        self._parts = session._render(shown)
        self._prompt = session._tokens(shown)
        return self._prompt

    def end(self, result: GenerationResult) -> None:
        """The answer is complete."""
        session = self._session
        session._report = result.cache
        if result.reasoning:  # a template leaves that out when it looks back
            session._seen = _Seen((), ())
        else:
            session._seen = _Seen(
                _append(self._parts, result.text), (*self._prompt, *result.tokens)
            )
        # A history set by hand while the answer ran is the user's last word.
        if session._history == self._before:
            answer = Message("assistant", result.text)
            session._history = [*self._messages, answer]


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
