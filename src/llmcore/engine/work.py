"""
`Work`: what the loop evaluates for one user of a sequence.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from llmcore.engine.cache import Cache
from llmcore.engine.job import Job
from llmcore.engine.signals import MOMENT, Signal
from llmcore.spi import BackendContext


class Work(abc.ABC):
    """
    Lives from `BatchLoop.submit` until it is `over`. Only the engine's thread calls it.

    Attributes:
        job: Its claim on the sequence.

        tokens: To be evaluated, the first of them at position ``start``.

        rows: How many of the last tokens need an output.

        running: Somebody reads along, so it goes before what was not begun.

        over: Nothing more is to be evaluated.

        served: Number of the last step that had a part of it.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokens: Sequence[int] = ()
        self.start = 0
        self.rows = 1
        self.running = False
        self.priority = 0
        self.over = False
        self.served = 0

    def asked(self) -> None:
        """It is about to be taken on; called once, on the thread that submits it."""
        return

    @property
    def left(self) -> int:
        """How many of its tokens are still to be evaluated."""
        return self.start + len(self.tokens) - len(self.job.slot.tokens)

    @property
    def parked(self) -> bool:
        """Whether it must wait for its reader."""
        return False

    def shorten(self, count: int) -> None:
        """Ask for the first tokens only; those after them were only guesses."""
        self.tokens = self.tokens[:count]
        self.rows = count

    @property
    def thoughtful(self) -> bool:
        """Whether `think` does anything."""
        return False

    def tell(self) -> None:
        """Let the reader know what is new; the engine is about to leave Python."""
        return

    def think(self) -> None:
        """Do what needs no native context, before the step; may take its time."""
        return

    @abc.abstractmethod
    def prepare(self, native: BackendContext, cache: Cache) -> None:
        """Make ``tokens`` ready for the step, or be over; the mirror is settled."""

    @abc.abstractmethod
    def take(self, native: BackendContext, row: int) -> None:
        """
        All tokens are evaluated: read the outputs, say what comes next, or be over.

        Args:
            native: The context; nothing but outputs may be read from it.

            row: The first of the ``rows`` outputs.
        """

    def settle(self, native: BackendContext, cache: Cache) -> None:
        """After all outputs of the step were read: bring the cache in order."""
        return

    def drop(self) -> None:
        """Its job has ended: nobody wants the rest."""
        return

    @abc.abstractmethod
    def fail(self, error: BaseException) -> None:
        """It is over because of this."""


class Evaluation(Work):
    """
    One evaluation by hand, which its caller waits for.

    Args:
        job: The claim; the caller ends it.

        tokens: One or more.

        read: Called with the native context and the row of the last token.

        what: The tokens, for an error message.
    """

    def __init__(
        self,
        job: Job,
        tokens: Sequence[int],
        read: Callable[[BackendContext, int], Any],
        what: str,
    ) -> None:
        super().__init__(job)
        self.tokens = tokens
        self.before: int | None = None
        self._read = read
        self._what = what
        self._done = Signal()
        self._error: BaseException | None = None
        self._value: Any = None

    def prepare(self, native: BackendContext, cache: Cache) -> None:
        """Begin where the sequence ends."""
        if self.before is None:
            slot = self.job.slot
            cache.check_room(slot, len(self.tokens), self._what)
            self.before = self.start = len(slot.tokens)

    def take(self, native: BackendContext, row: int) -> None:
        """Read what the caller wants."""
        self._value = self._read(native, row)
        self._end()

    def fail(self, error: BaseException) -> None:
        """Let the caller raise it."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self.over = True
        self._done.set()

    def wait(self) -> Any:
        """What ``read`` returned; for the caller."""
        try:
            while not (self._done.wait(MOMENT) or self.over):
                pass
        except BaseException:  # Ctrl-C: do not leave it to run on
            self.job.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._value
