"""
Work in flight, on any backend: a thread that reads a stream that would go on for long.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence as Tokens

from llmcore import Sequence, Stream


class RunningGeneration:
    """
    Reads a long stream in a thread of its own until the stream ends or raises.

    Args:
        sequence: Where to generate.

        prompt: The prompt.

        max_tokens: Where the stream ends; None means when the sequence is full.

        patience: Seconds after which a wait counts as a hang.

    Attributes:
        first_token: Set when the first piece of text was read.

        pieces: The text that was read.

        error: What ended the stream, if it did not end by itself.

        afterwards: What asking again after that gave: an exception, or a piece.
    """

    def __init__(
        self,
        sequence: Sequence,
        prompt: Tokens[int],
        *,
        max_tokens: int | None = None,
        patience: float = 30.0,
    ) -> None:
        ends = sequence.context.model.info.end_tokens
        self.stream: Stream = sequence.generate(
            prompt, max_tokens=max_tokens, logit_bias=dict.fromkeys(ends, -math.inf)
        )
        self.first_token = threading.Event()
        self.pieces: list[str] = []
        self.error: BaseException | None = None
        self.afterwards: object = None
        self._patience = patience
        self._thread = threading.Thread(target=self._read, name="running-generation")
        self._thread.start()

    def _read(self) -> None:
        try:
            for delta in self.stream:
                self.pieces.append(delta.text)
                self.first_token.set()
        except BaseException as error:
            self.error = error
        try:
            self.afterwards = next(self.stream)
        except BaseException as error:
            self.afterwards = error

    @property
    def running(self) -> bool:
        """Whether the thread still reads."""
        return self._thread.is_alive()

    def wait_first_token(self) -> None:
        """Return when the stream has given its first piece of text."""
        assert self.first_token.wait(self._patience), "the stream gave no text"

    def join(self) -> None:
        """Return when the stream has ended."""
        self._thread.join(self._patience)
        assert not self.running, "the stream did not end"

    def stop(self) -> None:
        """End it, whatever state it is in; for cleaning up."""
        self.stream.cancel()
        self._thread.join(self._patience)
