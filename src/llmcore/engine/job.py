"""
`Job`: one user's turn on a sequence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import ref

from llmcore.engine.slot import Slot
from llmcore.errors import BusyError, OperationCancelledError, SequenceBusyError
from llmcore.lifecycle import Node, Operation, Use

_claim = threading.Lock()  # never held across anything but the lines it guards


class _Claim:
    """Something that a slot can refer to as its user."""


@contextmanager
def claim_all(slots: Sequence[Slot]) -> Iterator[None]:
    """
    Claim several slots at once, or none.

    Raises:
        BusyError: One of them has a user.
    """
    claim = _Claim()
    with _claim:
        busy = [slot.number for slot in slots if slot.busy]
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
    Claims a sequence for one user until it ends or is dropped; a second is refused.

    Args:
        node: Of the sequence.

        slot: Its slot.

        interrupt: Makes the engine stop early if it works for this job right now.

    Raises:
        SequenceBusyError: The sequence has a user.

        DisposedError: The sequence is disposed.
    """

    def __init__(
        self, node: Node, slot: Slot, interrupt: Callable[[Job], object]
    ) -> None:
        self.slot = slot
        self.cancelled = False
        self._interrupt = interrupt
        node.check()
        with _claim:
            if slot.busy:
                raise SequenceBusyError(
                    f"{node.label} is in use by another stream or call: finish, cancel "
                    "or close that first, or take another sequence"
                )
            slot.user = ref(self)
        try:
            super().__init__(node)
        except BaseException:
            slot.user = None
            raise

    def cancel(self) -> None:
        """End the job at the next step, or inside one if the engine can; any thread."""
        self.cancelled = True
        self._interrupt(self)

    def use(self) -> Use:
        """The lease on the sequence; each step holds it besides that on the context."""
        return self._node.use(self)

    def check(self) -> None:
        """
        Raise if the job must not go on.

        Raises:
            DisposedError: The sequence is disposed.

            OperationCancelledError: `cancel` was called.
        """
        if self.cancelled:
            self._node.check()
            raise OperationCancelledError(
                f"the work on {self._node.label} was cancelled"
            )

    def end(self) -> None:
        """Free the sequence for the next user; twice is fine, also in the collector."""
        user = self.slot.user
        if user is not None and user() is self:
            self.slot.user = None
        super().end()
