"""
Saved states of caches that cannot drop a part of themselves.
"""

from __future__ import annotations

from collections import deque
from weakref import ref

from llmcore.engine.slot import Checkpoint, Slot
from llmcore.errors import LlmcoreError
from llmcore.spi import BackendContext

INTERVAL = 1024
"""Tokens between two checkpoints inside of a long prompt."""


class Checkpoints:
    """
    Those of all sequences of one context, bounded in bytes; the oldest go first.

    Args:
        limit: Most bytes; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = deque[tuple[ref[Slot], Checkpoint]]()  # the oldest first
        self.used = 0

    @property
    def wanted(self) -> bool:
        """Whether any are kept."""
        return self._limit > 0

    def take(self, native: BackendContext, slot: Slot) -> None:
        """Keep what a sequence is now; without harm if that is not possible."""
        length = len(slot.tokens)
        if not self.wanted or any(c.length == length for c in slot.checkpoints):
            return
        try:
            state = native.save_state(slot.number)
        except LlmcoreError:  # then there is one place less to go back to
            return
        if len(state) > self._limit:
            return
        checkpoint = Checkpoint(length, state)
        slot.checkpoints.append(checkpoint)
        slot.checkpoints.sort()
        self._taken.append((ref(slot), checkpoint))
        self.used += len(state)
        while self.used > self._limit:
            owner, oldest = self._taken[0]
            self._drop(owner(), oldest)

    def newest(self, slot: Slot, length: int) -> Checkpoint | None:
        """The longest one of at most ``length`` tokens."""
        fitting = [c for c in slot.checkpoints if 0 < c.length <= length]
        return fitting[-1] if fitting else None

    def prune(self, slot: Slot, length: int) -> None:
        """The sequence keeps only its first tokens: forget what came later."""
        for checkpoint in list(slot.checkpoints):
            if checkpoint.length > length:
                self._drop(slot, checkpoint)

    def _drop(self, slot: Slot | None, checkpoint: Checkpoint) -> None:
        if slot is not None:
            slot.checkpoints = [c for c in slot.checkpoints if c is not checkpoint]
        self._taken = deque(t for t in self._taken if t[1] is not checkpoint)
        self.used -= len(checkpoint.state)
