"""
The ledger: an account of every native object and call that does not trust core.

Whatever would crash a real engine is written down here instead.
"""

from __future__ import annotations

import enum
import mmap
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from attrs import Factory, define, frozen

from llmcore.errors import InsufficientMemoryError
from llmcore.spi import Batch

MAX_EVENTS = 100_000
"""Events kept; older ones are forgotten so that long runs stay small."""
MAX_BATCHES = 5_000
"""Batches kept, for the same reason."""


class ViolationKind(enum.StrEnum):
    """A promise of the seam that was broken."""

    USE_AFTER_FREE = "use-after-free"
    DOUBLE_FREE = "double-free"
    FREE_IN_USE = "free-in-use"
    PARENT_FREED_FIRST = "parent-freed-first"
    OVERLAP = "overlap"
    FORKED = "forked"
    FOREIGN = "foreign"
    POSITIONS = "positions"
    EMPTY_BATCH = "empty-batch"
    UNEQUAL_BATCH = "unequal-batch"
    BATCH_SIZE = "batch-size"
    TOKEN_RANGE = "token-range"
    SEQUENCE_RANGE = "sequence-range"
    ROW = "row"
    TARGET_NOT_EMPTY = "target-not-empty"
    UNDECLARED = "undeclared"


@frozen(kw_only=True)
class Violation:
    """One broken promise: which, in which call, on which object, and how."""

    kind: ViolationKind
    op: str
    handle: str
    detail: str = ""


class Event(NamedTuple):
    """One call, written down when it entered."""

    op: str
    kind: str
    id: int


@define(eq=False)
class Handle:
    """One simulated native object. ``lane`` holds the calls that must not overlap."""

    kind: str
    id: int
    parent: Handle | None = None
    size: int = 0
    lane: list[Call] = Factory(list)
    inside: list[Call] = Factory(list)
    closing: bool = False
    pid: int = Factory(os.getpid)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@define(eq=False)
class Call:
    """One call that is inside the engine now."""

    op: str
    handle: Handle


class Ledger:
    """
    Counts what one `NullBackend` allocates, frees and is asked; lives as long as it.

    Nothing here raises because of a violation. Any thread, and finalizers: the lock is
    re-entrant and every change under it is a single step.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._handles: dict[Handle, None] = {}
        self._violations: list[Violation] = []
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._batches: deque[Batch] = deque(maxlen=MAX_BATCHES)
        self._calls: dict[str, int] = {}
        self._ids = 0
        self._lingering = 0
        self._pid = os.getpid()
        # Memory that a forked child shares, so that the parent sees what it did.
        self._forked = mmap.mmap(-1, 1)

    @property
    def violations(self) -> list[Violation]:
        """Every broken promise so far, oldest first; those of a forked child last."""
        with self._lock:
            found = list(self._violations)
        if self._forked[0] and os.getpid() == self._pid:
            detail = "a forked child called the engine"
            found.append(
                Violation(
                    kind=ViolationKind.FORKED, op="", handle="child", detail=detail
                )
            )
        return found

    @property
    def live(self) -> dict[str, int]:
        """How many objects of each kind exist; kinds without any are left out."""
        with self._lock:
            return dict(Counter(handle.kind for handle in list(self._handles)))

    @property
    def live_bytes(self) -> int:
        """Bytes of all objects that exist."""
        with self._lock:
            return sum(handle.size for handle in list(self._handles))

    @property
    def used_bytes(self) -> int:
        """What a device reports: `live_bytes`, and what was freed but not returned."""
        with self._lock:
            return self.live_bytes + self._lingering

    @property
    def calls(self) -> Counter[str]:
        """How often each operation was entered."""
        with self._lock:
            return Counter(self._calls)

    @property
    def events(self) -> list[Event]:
        """The last `MAX_EVENTS` calls, in the order in which they entered."""
        with self._lock:
            return list(self._events)

    @property
    def batches(self) -> list[Batch]:
        """
        The last `MAX_BATCHES` batches that came to `decode`, as tuples, oldest first.

        Those of all contexts; also what is held at a gate now, was refused or failed.
        """
        with self._lock:
            return list(self._batches)

    def settle(self) -> None:
        """Return freed memory that ``release_delay`` held back."""
        with self._lock:
            self._lingering = 0

    # -- for the null backend ------------------------------------------------------

    def allocate(
        self,
        kind: str,
        parent: Handle | None = None,
        *,
        size: int = 0,
        capacity: int | None = None,
        lane: list[Call] | None = None,
    ) -> Handle:
        """
        Open the account of a new object.

        Raises:
            InsufficientMemoryError: ``size`` does not fit into ``capacity`` bytes.
        """
        with self._lock:
            free = None if capacity is None else capacity - self.used_bytes
            if free is not None and size > free:
                raise InsufficientMemoryError(
                    f"the {kind} needs {size} bytes but {max(0, free)} are free: "
                    "dispose something or ask for less"
                )
            self._ids += 1
            handle = Handle(kind, self._ids, parent, size)
            if lane is not None:
                handle.lane = lane
            self._handles[handle] = None
            return handle

    def release(self, handle: Handle, *, linger: bool = False) -> None:
        """Close an account; ``linger`` keeps its bytes in use until `settle`."""
        with self._lock:
            handle.closing = True
            if handle in self._handles:
                del self._handles[handle]
                self._lingering += handle.size if linger else 0

    @contextmanager
    def use(
        self, handle: Handle, op: str, *, exclusive: bool = False
    ) -> Iterator[None]:
        """Write down a call on an object for as long as it is inside."""
        with self._inside(Call(op, handle), exclusive, self._check_use):
            yield

    @contextmanager
    def close(
        self, handle: Handle, op: str, *, exclusive: bool = False, linger: bool = False
    ) -> Iterator[None]:
        """Write down the call that frees an object, and free it even if it fails."""
        with self._inside(Call(op, handle), exclusive, self._check_close):
            try:
                yield
            finally:
                self.release(handle, linger=linger)

    def record(self, batch: Batch) -> None:
        """Write down a batch as it is now."""
        tokens, positions, sequences, outputs = batch
        kept = tuple(tokens), tuple(positions), tuple(sequences), tuple(outputs)
        with self._lock:
            self._batches.append(Batch(*kept))

    def violate(
        self, kind: ViolationKind, op: str, handle: Handle, detail: str = ""
    ) -> None:
        """Write down a broken promise."""
        self._violations.append(
            Violation(kind=kind, op=op, handle=str(handle), detail=detail)
        )

    @contextmanager
    def _inside(
        self, call: Call, exclusive: bool, check: Callable[[Call, list[Call]], None]
    ) -> Iterator[None]:
        handle = call.handle
        lane = handle.lane if exclusive else []
        if handle.pid != os.getpid():
            # Before the lock: the fork may have copied it while a thread held it.
            self._forked[0] = 1
            self.violate(ViolationKind.FORKED, call.op, handle)
        with self._lock:
            self._events.append(Event(call.op, handle.kind, handle.id))
            self._calls[call.op] = self._calls.get(call.op, 0) + 1
            check(call, lane)
            handle.inside.append(call)
            lane.append(call)
        try:
            yield
        finally:
            with self._lock:
                handle.inside.remove(call)
                lane.remove(call)

    def _check_use(self, call: Call, lane: list[Call]) -> None:
        if call.handle.closing:
            self.violate(ViolationKind.USE_AFTER_FREE, call.op, call.handle)
        else:
            self._check_overlap(call, lane)

    def _check_close(self, call: Call, lane: list[Call]) -> None:
        op, handle = call.op, call.handle
        if handle.closing:
            self.violate(ViolationKind.DOUBLE_FREE, op, handle)
        elif handle.inside:
            detail = f"{handle.inside[0].op} is inside"
            self.violate(ViolationKind.FREE_IN_USE, op, handle, detail)
        else:
            self._check_overlap(call, lane)
        handle.closing = True
        for child in list(self._handles):
            if child.parent is handle:
                detail = f"{child} lives"
                self.violate(ViolationKind.PARENT_FREED_FIRST, op, handle, detail)

    def _check_overlap(self, call: Call, lane: list[Call]) -> None:
        for rival in lane:
            detail = f"{rival.op} is inside {rival.handle}"
            self.violate(ViolationKind.OVERLAP, call.op, call.handle, detail)
