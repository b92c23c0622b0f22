"""
`SlotPool`: which sequence numbers of a context are free.
"""

from __future__ import annotations

import time
from collections import deque
from heapq import heappop, heappush

from llmcore.engine.cache import Cache
from llmcore.engine.job import claim_all
from llmcore.engine.signals import MOMENT, Signal
from llmcore.engine.slot import Slot
from llmcore.errors import BrokenError, DisposedError, ForkError
from llmcore.lifecycle import Node


class SlotPool:
    """
    Lives as long as its context. Any thread.

    Args:
        count: How many sequences the context has.

        cache: The caches of the context.

        node: Of the context.
    """

    def __init__(self, count: int, cache: Cache, node: Node) -> None:
        self._cache = cache
        self._node = node
        self._free = list(range(count))
        self._taken: dict[int, Slot] = {}
        self._unclean: set[int] = set()
        self._waiters = deque[Signal]()

    @property
    def left(self) -> int:
        """How many sequences can still be taken."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """How many wait for a free one."""
        return len(self._waiters)

    @property
    def taken(self) -> list[Slot]:
        """Those that are not free, in the order of their numbers."""
        return sorted(self._taken.values(), key=lambda slot: slot.number)

    @property
    def token_count(self) -> int:
        """Tokens in the cache, of all sequences."""
        return sum(len(slot.tokens) for slot in self.taken)

    def take(self) -> Slot | None:
        """A clean slot, or None if all are taken."""
        try:  # the lowest: engines like the numbers in a batch to be close together
            number = heappop(self._free)
        except IndexError:
            return None
        if number in self._unclean:
            try:
                with self._node.use() as native:
                    native.clear(number)
                self._unclean.discard(number)
            except BaseException:
                heappush(self._free, number)
                raise
        slot = self._taken[number] = Slot(number)
        return slot

    def wait(self, timeout: float | None) -> Slot | None:
        """A clean slot as soon as there is one; None if the time is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        signal = Signal()
        self._waiters.append(signal)
        try:
            while True:
                self._node.check()
                slot = self.take()
                if slot is not None:
                    return slot
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                left = MOMENT if deadline is None else deadline - time.monotonic()
                signal.wait(max(0.0, min(MOMENT, left)))
        finally:
            self._waiters.remove(signal)

    def give_back(self, slot: Slot) -> None:
        """Empty a slot and make it free; nobody uses it any more."""
        try:
            if slot.tokens or slot.pending:
                self._unclean.add(slot.number)
                with self._node.use() as native:
                    self._cache.clear(native, slot)
                self._unclean.discard(slot.number)
        except (DisposedError, BrokenError, ForkError):
            pass  # the whole context goes, and the slot with it
        finally:
            slot.tokens, slot.pending = [], ()
            self._taken.pop(slot.number, None)
            heappush(self._free, slot.number)
            for signal in list(self._waiters)[:1]:  # the one that waited longest
                signal.set()

    def clear_all(self, *, data: bool) -> None:
        """Empty every sequence; none of them may have a user."""
        with self._node.use() as native:
            slots = self.taken  # only now: one taken since may hold something
            with claim_all(slots):
                self._cache.clear_all(native, slots, data=data)
