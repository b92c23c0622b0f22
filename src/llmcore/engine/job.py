"""
`Job`: one user's turn on a sequence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import ref

from llmcore.engine.slot import Slot
from llmcore.errors import (
    BusyError,
    OperationCancelledError,
    OperationTimeoutError,
    SequenceBusyError,
)
from llmcore.lifecycle import Node, Operation, Use

_claim = threading.Lock()  # never held across anything but the lines it guards


class _Claim:
    """Something that a slot can refer to as its user."""

    ended = False


@contextmanager
def claim_all(slots: Sequence[Slot]) -> Iterator[None]:
    """
    Claim several slots at once, or none.

    Raises:
        BusyError: One of them has a user, or somebody stands in line for it.
    """
    claim = _Claim()
    with _claim:
        # Who stands in line is about to have it: the engine only has to notice.
        busy = [slot.number for slot in slots if slot.busy or slot.waiting]
        if busy:
            raise BusyError(
                f"sequences {busy} of the context are in use: finish, cancel or close "
                "what runs on them first"
            )
        for slot in slots:
            slot.user = ref(claim)
    try:
        yield
    finally:
        for slot in slots:
            slot.user = None


class Job(Operation):
    """
    One user's turn on a sequence, from its claim until it ends or is dropped.

    Args:
        node: Of the sequence.

        slot: Its slot.

        changed: Called when the engine should look at the job: it was cancelled, or it
            ended. Any thread, also in the collector.

        wait: Stand in line if the sequence has a user; the engine lets it in.

        timeout: Seconds until it must be over; None for no limit.

    Raises:
        SequenceBusyError: The sequence has a user, or others stand in line.

        DisposedError: The sequence is disposed.
    """

    def __init__(
        self,
        node: Node,
        slot: Slot,
        changed: Callable[[Job], object],
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.slot = slot
        self.cancelled = False
        self.waiting = False
        self.ended = False
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._changed = changed
        self._when_over: list[Callable[[], object]] = []
        node.check()
        with _claim:
            if not slot.busy and not slot.waiting:
                slot.user = ref(self)
            elif wait:
                self.waiting = True
                slot.line.append(ref(self))
            else:
                raise SequenceBusyError(
                    f"{node.label} is in use by another stream or call: finish, cancel "
                    "or close that first, take another sequence, or say wait=True"
                )
        try:
            super().__init__(node)
        except BaseException:
            self.ended = True
            raise

    @property
    def node(self) -> Node:
        """Of the sequence."""
        return self._node

    def claim(self) -> bool:
        """Let a waiting job in if it is its turn; the engine asks."""
        if self.waiting:
            slot = self.slot
            with _claim:
                if slot.busy or not slot.waiting or slot.line[0]() is not self:
                    return False
                del slot.line[0]
                slot.user = ref(self)
                self.waiting = False
        return True

    def cancel(self) -> None:
        """End the job at the next step, or inside one if the engine can; any thread."""
        self.cancelled = True
        self._changed(self)

    def hurry(self) -> None:
        """Have the engine look at the job now, inside of a step too if it can."""
        self._changed(self)

    def use(self) -> Use:
        """The lease on the sequence; each step holds it besides that on the context."""
        return self._node.use(self)

    def check(self) -> None:
        """
        Raise if the job must not go on.

        Raises:
            DisposedError: The sequence is disposed.

            OperationCancelledError: `cancel` was called.

            OperationTimeoutError: Its time is over.
        """
        if self.cancelled:
            self._node.check()
            raise OperationCancelledError(
                f"the work on {self._node.label} was cancelled"
            )
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OperationTimeoutError(
                f"the work on {self._node.label} was not over after {self._timeout} s: "
                "give it more time, or ask for fewer tokens"
            )

    def when_over(self, callback: Callable[[], object]) -> None:
        """
        Call back once when the sequence is free, at once if it is.

        From any thread, also in the collector: it must neither wait nor raise.
        """
        self._when_over.append(callback)
        if self.ended:
            self._tell()

    def end(self) -> None:
        """Free the sequence for the next user; twice is fine, also in the collector."""
        if not self.ended:
            self.ended = True  # what the slot looks at
            super().end()
            self._changed(self)
            self._tell()

    def _tell(self) -> None:
        while True:
            try:
                callback = self._when_over.pop()
            except IndexError:  # told all, or another thread does
                return
            callback()
