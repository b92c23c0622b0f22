"""
`Server`: one context that many requests share.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from llmcore.chat import Chat
from llmcore.context import Context
from llmcore.engine.reuse import common_prefix
from llmcore.engine.signals import MOMENT, Signal
from llmcore.errors import (
    ChatTemplateError,
    OperationTimeoutError,
    QueueFullError,
)
from llmcore.sequence import Sequence as TokenSequence
from llmcore.stream import Stream
from llmcore.telemetry import span

WORTH = 0.1
"""Share of a prompt that must be in a cache before that is reason to prefer it."""


class Server:
    """
    Lives as long as its context. Any thread.

    A request takes the free sequence whose cache has the most of its prompt, and gives
    it back with what it leaves there: so a conversation, or a system prompt, that comes
    again is not evaluated again.

    Args:
        context: All its sequences are taken by this object.

        max_queue: How many requests may wait for one.
    """

    def __init__(self, context: Context, max_queue: int) -> None:
        self.context = context
        self._max_queue = max_queue
        self._free = [context.get_sequence() for _ in range(context.params.sequences)]
        self._all = tuple(self._free)
        self._chats = _chats(self._all)
        self._choosing = threading.Lock()  # held for a few lines that do not wait
        self._waiting = deque[Signal]()

    def generate(self, prompt: str, timeout: float, options: dict[str, Any]) -> Stream:
        """Continue a plain text."""
        model = self.context.model
        tokens = model.tokenize(prompt, add_bos=model.info.add_bos)
        sequence = self._take(tokens, timeout)
        try:
            stream = sequence.generate(tokens, **options)
        except BaseException:
            self._give(sequence)
            raise
        stream.when_over(partial(self._give, sequence))
        return stream

    def chat(
        self, messages: Sequence[Any], timeout: float, options: dict[str, Any]
    ) -> Stream:
        """Answer a conversation."""
        if not self._chats:
            self.context.model.chat_template  # noqa: B018  raises what is wrong with it
        tokens = self._chats[self._all[0]].tokens(messages)
        sequence = self._take(tokens, timeout)
        try:
            stream = self._chats[sequence].stream(messages, **options)
        except BaseException:
            self._give(sequence)
            raise
        stream.when_over(partial(self._give, sequence))
        return stream

    # -- who gets which sequence -------------------------------------------------------

    def _take(self, tokens: Sequence[int], timeout: float) -> TokenSequence:
        """
        The best free sequence; waits for one.

        Raises:
            QueueFullError: Too many wait already.

            OperationTimeoutError: None became free in time.
        """
        sequence = None if self._waiting else self._best(tokens)
        if sequence is not None:
            return sequence
        if len(self._waiting) >= self._max_queue:
            raise QueueFullError(
                f"{len(self._waiting)} requests wait for {self.context._node.label} "
                "already: try again later, or load it with a larger max_queue or more "
                "sequences"
            )
        with span("queue", self.context._node, depth=len(self._waiting)):
            return self._wait(tokens, time.monotonic() + timeout, timeout)

    def _wait(
        self, tokens: Sequence[int], deadline: float, timeout: float
    ) -> TokenSequence:
        signal = Signal()
        self._waiting.append(signal)
        try:
            while True:
                self.context._check()
                first = self._waiting[0] is signal
                sequence = self._best(tokens) if first else None
                if sequence is not None:
                    return sequence
                left = deadline - time.monotonic()
                if left <= 0:
                    raise OperationTimeoutError(
                        f"no sequence of {self.context._node.label} became free in "
                        f"{timeout:g} s: load it with more sequences, or wait longer"
                    )
                signal.wait(min(MOMENT, left))
        finally:
            self._waiting.remove(signal)
            self._wake()

    def _best(self, tokens: Sequence[int]) -> TokenSequence | None:
        """Take the free sequence with the longest start of a prompt in its cache."""
        with self._choosing:
            if not self._free:
                return None
            enough = max(1, round(WORTH * len(tokens)))

            def worth(sequence: TokenSequence) -> tuple[int, int]:
                held = sequence._slot.tokens
                common = common_prefix(held, tokens)
                return (common if common >= enough else 0, -len(held))

            best = max(self._free, key=worth)
            self._free.remove(best)
            return best

    def _give(self, sequence: TokenSequence) -> None:
        """Also called in the collector: neither waits nor raises."""
        self._free.append(sequence)
        self._wake()

    def _wake(self) -> None:
        for signal in list(self._waiting)[:1]:
            signal.set()

    def info(self) -> dict[str, Any]:
        """How busy it is."""
        return {
            "sequences": len(self._all),
            "free_sequences": len(self._free),
            "queue_depth": len(self._waiting),
            "context_size": self.context.params.context_size,
        }


def _chats(sequences: tuple[TokenSequence, ...]) -> dict[TokenSequence, Chat]:
    """A chat on each, which knows what it has said there; none without a template."""
    try:
        return {sequence: Chat(sequence) for sequence in sequences}
    except ChatTemplateError:
        return {}
