"""
`Job`: one user's turn on a sequence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from llmcore.engine.slot import Slot
from llmcore.errors import BusyError, OperationCancelledError, SequenceBusyError
from llmcore.lifecycle import Node, Operation, Use

_claim = threading.Lock()  # never held across anything but the two lines it guards


@contextmanager
def claim_all(slots: Sequence[Slot]) -> Iterator[None]:
    """
    Claim several slots at once, or none.

    Raises:
        BusyError: One of them has a user.
    """
    with _claim:
        busy = [slot.number for slot in slots if slot.user is not None]
        if busy:
            raise BusyError(
                f"sequences {busy} of the context are in use: finish, cancel or close "
                "what runs on them first"
            )
        for slot in slots:
            slot.user = slots
    try:
        yield
    finally:
        for slot in slots:
            slot.user = None


class Job:
    """
    Claims a sequence for one user until it ends; a second claim is refused.

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
        self._node = node
        self._interrupt = interrupt
        node.check()
        with _claim:
            if slot.user is not None:
                raise SequenceBusyError(
                    f"{node.label} is in use by another stream or call: finish, cancel "
                    "or close that first, or take another sequence"
                )
            slot.user = self
        try:
            self.operation = Operation(node, self.cancel)
        except BaseException:
            slot.user = None
            raise

    def cancel(self) -> None:
        """End the job at the next step, or inside one if the engine can; any thread."""
        self.cancelled = True
        self._interrupt(self)

    def use(self) -> Use:
        """The lease on the sequence; each step holds it besides that on the context."""
        return self._node.use(self.operation)

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
        if self.slot.user is self:
            self.slot.user = None
        self.operation.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
