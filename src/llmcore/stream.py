"""
`Stream`: an answer while it is made, for ``for`` and for ``async for``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Self

from attrs import frozen

from llmcore.engine.generation import Generation, GenerationResult
from llmcore.errors import BusyError, NoResultError


@frozen(kw_only=True)
class TextDelta:
    """
    A piece of an answer.

    Attributes:
        text: Whole characters; may be empty while a character or a possible stop
            string is not complete.

        tokens: How many tokens the answer has so far.
    """

    text: str
    tokens: int


class Stream:
    """
    Lives until its answer ends, or until `close`, the end of its ``with`` block, or
    until it is dropped: then its sequence is free for the next user at once.

    Belongs to no thread and no task; one at a time may ask for the next piece. After an
    error or the end there are no more pieces.
    """

    def __init__(
        self,
        generation: Generation,
        on_result: Callable[[GenerationResult], object] | None = None,
        sequence: object = None,
    ) -> None:
        self._generation = generation
        self._sequence = sequence  # not collected while the stream can go on
        self._on_result = on_result
        self._turn = threading.Lock()
        self._over = False
        self._dropped = weakref.finalize(self, generation.close)
        self._dropped.atexit = False

    # -- the pieces --------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TextDelta:
        delta = self._next()
        if delta is None:
            raise StopIteration
        return delta

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextDelta:
        from anyio import get_cancelled_exc_class, to_thread

        try:
            delta = await to_thread.run_sync(self._next, abandon_on_cancel=True)
        except get_cancelled_exc_class():
            # The thread may still be inside a step: whoever comes last frees the
            # sequence, it or this task.
            self._over = True
            self._generation.job.cancel()
            if self._turn.acquire(blocking=False):
                self._generation.close()
                self._turn.release()
            raise
        if delta is None:
            raise StopAsyncIteration
        return delta

    def _next(self) -> TextDelta | None:
        """The next piece that has text or ends the answer; None after the end."""
        if not self._turn.acquire(blocking=False):
            raise BusyError(
                "another thread or task is waiting for the next piece of this stream: "
                "let one consumer read it"
            )
        try:
            if self._over:
                return None
            return self._step()
        finally:
            self._turn.release()
            if self._over:
                self._generation.close()

    def _step(self) -> TextDelta | None:
        generation = self._generation
        try:
            text = ""
            while not text and generation.result is None:
                text = generation.step()
        except BaseException:
            self._over = True
            raise
        if generation.result is not None:
            self._over = True
            self._dropped.detach()
            if self._on_result is not None:
                self._on_result(generation.result)
        return TextDelta(text=text, tokens=len(generation.tokens)) if text else None

    # -- ending it ---------------------------------------------------------------------

    def cancel(self) -> None:
        """Give the answer up; its reader gets `OperationCancelledError`. Any thread."""
        self._generation.job.cancel()

    def stop(self) -> None:
        """
        End the answer after the step that runs: its consumer gets what there is, with
        the finish reason ``"stopped"``. Any thread.
        """
        self._generation.stopping = True

    def close(self) -> None:
        """Drop the rest and free the sequence; returns when the running step ended."""
        self._generation.job.cancel()
        with self._turn:
            self._over = True
            self._generation.close()

    @property
    def started(self) -> bool:
        """Whether the first token of the answer was drawn."""
        return bool(self._generation.tokens)

    @property
    def result(self) -> GenerationResult:
        """
        The whole answer; runs it to its end if it is not there yet.

        Raises:
            NoResultError: The stream ended without an answer (cancelled, failed).
        """
        for _ in self:
            pass
        if self._generation.result is None:
            raise NoResultError("the stream ended without a result: it was cut off")
        return self._generation.result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        import anyio
        from anyio import to_thread

        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self.close)
