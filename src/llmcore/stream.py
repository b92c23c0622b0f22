"""
`Stream`: an answer while it is made, for ``for`` and for ``async for``.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Self

from llmcore.engine.generation import Generation, GenerationResult
from llmcore.engine.signals import MOMENT
from llmcore.engine.tasks import nap
from llmcore.errors import BusyError, NoResultError
from llmcore.events import Finish, StreamEvent, TextDelta
from llmcore.twins import unless_cancelled

__all__ = ["Stream", "TextDelta"]


class Stream:
    """
    Lives until its answer ends, or until `close`, the end of its ``with`` block, or
    until it is dropped: then its sequence is free for the next user at once. What a
    running step evaluates still comes to the sequence; `close` waits for it.

    Yields events, each with the ``text`` that it adds to the answer; see
    `llmcore.events`. The engine runs a few events ahead of the reader, and waits for it
    then. Belongs to no thread and no task; one at a time may ask for the next event.
    After an error or the end there are no more.
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
        self._result: GenerationResult | None = None
        self._dropped = weakref.finalize(self, generation.close)
        self._dropped.atexit = False

    # -- the events --------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        self._begin_turn()
        try:
            event = self._ready()
            while event is None and not self._over:
                self._generation.mailbox.ready.wait(self._patience())
                event = self._ready()
        except BaseException:  # also Ctrl-C
            self._end()
            raise
        finally:
            self._turn.release()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        self._begin_turn()
        try:
            event = self._ready()
            while event is None and not self._over:
                await self._woken()
                event = self._ready()
        except BaseException:  # also a cancelled task
            self._end()
            raise
        finally:
            self._turn.release()
        if event is None:
            raise StopAsyncIteration
        return event

    async def _woken(self) -> None:
        """Wait until there is something to look at, or a deadline is near."""
        mailbox, rest = self._generation.mailbox, nap()
        mailbox.notify = rest.wake
        if mailbox.ready.wait(0):  # it came before we said whom to wake
            return
        if self._generation.job.deadline is None:
            await rest.over()
            return
        import anyio

        with anyio.move_on_after(self._patience()):
            await rest.over()

    def _begin_turn(self) -> None:
        if not self._turn.acquire(blocking=False):
            raise BusyError(
                "another thread or task is waiting for the next event of this stream: "
                "let one consumer read it"
            )

    def _ready(self) -> StreamEvent | None:
        """The next event if it is there; otherwise None, and `_over` tells whether."""
        if self._over:
            return None
        generation = self._generation
        mailbox, job = generation.mailbox, generation.job
        closed = mailbox.closed  # first: what came before is in the box then
        if job.cancelled and not closed:
            return None  # the step that runs must end first
        event = None if job.cancelled else mailbox.poll()
        if event is None and closed:
            self._over = True
            if generation.error is not None:
                raise generation.error
            job.check()
        if isinstance(event, Finish):
            self._commit()
        return event

    def _patience(self) -> float:
        """Seconds to wait; a step that outlasts the deadline is interrupted."""
        job = self._generation.job
        if job.deadline is None:
            return MOMENT
        left = job.deadline - time.monotonic()
        if left <= 0:
            job.hurry()
            return MOMENT
        return min(left, MOMENT)

    def _commit(self) -> None:
        """The answer is complete and was read."""
        result = self._generation.result
        assert result is not None
        self._result = result
        if self._on_result is not None:
            self._on_result(result)
        self._end()

    def _end(self) -> None:
        self._over = True
        self._dropped.detach()
        self._generation.close()

    # -- ending it ---------------------------------------------------------------------

    def cancel(self) -> None:
        """Give the answer up; its reader gets `OperationCancelledError`. Any thread."""
        self._generation.cancel()

    def stop(self) -> None:
        """
        End the answer after the step that runs: its reader gets what there is, with
        the finish reason ``"stopped"``. Any thread.
        """
        self._generation.stop()

    def close(self) -> None:
        """Drop the rest and free the sequence; returns when the running step ended."""
        if self._over:
            return
        self._generation.cancel()
        self._generation.wait_until_let_go()
        self._generation.close()
        if self._turn.acquire(blocking=False):  # else the one who reads gets the error
            self._end()
            self._turn.release()

    def when_over(self, callback: Callable[[], object]) -> None:
        """
        Call back once when the answer is over, however it ended, and its sequence is
        free; at once if it is.

        From any thread, also in the collector: it must neither wait nor raise.
        """
        self._generation.job.when_over(callback)

    @property
    def started(self) -> bool:
        """Whether the first token of the answer was drawn."""
        return bool(self._generation.drawn)

    @property
    def result(self) -> GenerationResult:
        """
        The whole answer; runs it to its end if it is not there yet.

        Raises:
            NoResultError: The stream ended without an answer (cancelled, failed).
        """
        for _ in self:
            pass
        if self._result is None:
            raise NoResultError("the stream ended without a result: it was cut off")
        return self._result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        import anyio
        from anyio import to_thread

        if not self._over:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.close)


async def answer_of(begin: Callable[[], Stream]) -> str:
    """The text of a stream that is begun in a worker thread, since that may wait."""
    async with await unless_cancelled(begin, undo=Stream.close) as stream:
        async for _ in stream:
            pass
    return stream.result.text
