"""
`Cache`: the only place in core that edits the native caches.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcore.engine.checkpoints import INTERVAL, Checkpoints
from llmcore.engine.reuse import plan_reuse
from llmcore.engine.slot import Slot
from llmcore.errors import ContextOverflowError, StateError
from llmcore.events import CacheReport
from llmcore.spi import BackendContext
from llmcore.values import CacheKind, Capability, ContextParams, ModelInfo


class Cache:
    """
    Keeps the mirror of each sequence true to the engine's cache.

    Every method that takes ``native`` is called inside of a lease on the context.

    Args:
        params: What the context was really given.

        info: Of the loaded model.
    """

    def __init__(self, params: ContextParams, info: ModelInfo) -> None:
        assert isinstance(params.context_size, int)
        self.size = params.context_size
        self.can_remove = Capability.PARTIAL_REMOVE in info.capabilities
        self.can_shift = self.can_remove and Capability.SHIFT in info.capabilities
        self._can_copy = Capability.COPY in info.capabilities
        has_state = Capability.STATE_IO in info.capabilities
        self._slides = info.cache_kind is CacheKind.SLIDING_WINDOW
        # A full cache goes back to any place by itself.
        needed = has_state and info.cache_kind not in (CacheKind.FULL, CacheKind.NONE)
        self._checkpoints = Checkpoints(params.checkpoint_bytes if needed else 0)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes that saved states use now."""
        return self._checkpoints.used

    def check_room(self, slot: Slot, more: int, what: str) -> None:
        """
        Raises:
            ContextOverflowError: So many more tokens do not fit.
        """
        if len(slot.tokens) + more > self.size:
            raise ContextOverflowError(len(slot.tokens) + more, self.size, what)

    def settle(self, native: BackendContext, slot: Slot) -> None:
        """Bring mirror and cache together after a call that did not come back well."""
        if not slot.pending:
            return
        known = [*slot.tokens, *slot.pending]
        first, last = native.bounds(slot.number)
        torn = first != 0 and self.can_remove and not self._slides
        if last >= len(known) or torn:
            native.clear(slot.number)
            last = -1
        self._keep(slot, known[: last + 1])

    def clear(self, native: BackendContext, slot: Slot) -> None:
        """Empty a sequence."""
        slot.pending = list(slot.tokens)  # until the line after next, nothing is sure
        slot.logits = None
        native.clear(slot.number)
        self._keep(slot, [])

    def clear_all(
        self, native: BackendContext, slots: Sequence[Slot], *, data: bool
    ) -> None:
        """Empty the whole context, of which these are the taken slots."""
        for slot in slots:
            slot.pending, slot.logits = list(slot.tokens), None
        native.clear(data=data)
        for slot in slots:
            self._keep(slot, [])

    def cut(self, native: BackendContext, slot: Slot, length: int) -> int:
        """
        Keep the first tokens of a sequence.

        Returns:
            How many were kept: ``length``; less if the cache cannot drop a part of
            itself and went back to a checkpoint, or to nothing.
        """
        if length >= len(slot.tokens):
            return len(slot.tokens)
        slot.logits = None
        slot.pending = slot.tokens  # until it is done nothing is sure
        if length > 0 and self.can_remove and native.remove(slot.number, length):
            # A cache may say yes and have lost more than that: its positions decide.
            _, last = bounds = native.bounds(slot.number)
            if bounds == (0, length - 1) or (last == length - 1 and self._slides):
                self._keep(slot, slot.tokens[:length])
                return length
        return self._go_back(native, slot, length)

    def _go_back(self, native: BackendContext, slot: Slot, length: int) -> int:
        """To the longest checkpoint that a cut leaves, or to nothing."""
        tokens = slot.tokens
        checkpoint = self._checkpoints.newest(slot, length)
        slot.pending = list(tokens)
        native.clear(slot.number)
        self._keep(slot, [], prune=False)
        if checkpoint is not None:
            slot.pending = tokens[: checkpoint.length]
            native.load_state(slot.number, checkpoint.state)
            if native.bounds(slot.number)[1] == checkpoint.length - 1:
                self._keep(slot, tokens[: checkpoint.length], prune=False)
            else:
                self.clear(native, slot)
        self._checkpoints.prune(slot, len(slot.tokens))
        return len(slot.tokens)

    def _keep(self, slot: Slot, tokens: list[int], *, prune: bool = True) -> None:
        slot.tokens, slot.pending = tokens, ()
        if prune and slot.checkpoints:
            self._checkpoints.prune(slot, len(tokens))

    def reuse(
        self,
        native: BackendContext,
        slot: Slot,
        prompt: Sequence[int],
        *,
        move: bool = False,
    ) -> CacheReport:
        """
        Cut a sequence down to what a prompt can keep of it.

        Args:
            native: The context.

            slot: Of the sequence.

            prompt: What it is to hold.

            move: Whether tokens after a gap may be moved to its place.
        """
        plan = plan_reuse(slot.tokens, prompt, move=move and self.can_shift)
        reason, shifted = plan.reason, 0
        if plan.moved and self._close_gap(native, slot, plan.matched, plan.gap):
            shifted = plan.moved
        kept = self.cut(native, slot, plan.matched + shifted)
        if kept < plan.matched + shifted:
            shifted = min(shifted, max(0, kept - plan.matched))
            reason = "the cache cannot drop a part of itself"
            if kept:
                reason += f", it went back to a checkpoint at token {kept}"
        return CacheReport(
            matched=kept - shifted,
            shifted=shifted,
            evaluated=len(prompt) - kept,
            reason=reason,
        )

    def drop(self, native: BackendContext, slot: Slot, keep: int, count: int) -> bool:
        """Drop ``count`` tokens after the first ``keep``, and move up what follows."""
        return self._close_gap(native, slot, keep, count)

    def _close_gap(
        self, native: BackendContext, slot: Slot, start: int, count: int
    ) -> bool:
        tokens, end = slot.tokens, start + count
        slot.pending, slot.logits = list(tokens), None
        if not native.remove(slot.number, start, end):
            slot.pending = ()
            return False
        rest = tokens[:start] + tokens[end:]
        try:
            native.shift(slot.number, end, len(tokens), -count)
            closed = native.bounds(slot.number) == (0, len(rest) - 1)
        except BaseException:  # there may be a hole in the cache now
            self.clear(native, slot)
            raise
        if not closed:
            self.clear(native, slot)
            return False
        self._checkpoints.prune(slot, start)
        self._keep(slot, rest)
        return True

    def copy(self, native: BackendContext, source: Slot, target: Slot) -> bool:
        """Copy a sequence into an empty slot; False if the backend cannot."""
        if not self._can_copy:
            return False
        target.pending = list(source.tokens)
        native.copy(source.number, target.number)
        self._keep(target, list(source.tokens))
        target.logits = source.logits
        return True

    def load(
        self,
        native: BackendContext,
        slot: Slot,
        tokens: Sequence[int],
        state: bytes,
    ) -> None:
        """
        Replace a sequence by a saved one.

        Raises:
            StateError: The bytes do not hold these tokens; the sequence is empty.
        """
        self.clear(native, slot)
        slot.pending = list(tokens)
        try:
            native.load_state(slot.number, state)
            if native.bounds(slot.number)[1] != len(tokens) - 1:
                raise StateError(
                    "cannot load state: the engine holds other positions than the "
                    "token log says"
                )
        except BaseException:
            self.clear(native, slot)
            raise
        self._keep(slot, list(tokens))

    def checkpoint(self, native: BackendContext, slot: Slot, *, now: bool) -> None:
        """
        Keep a place to go back to, if this cache needs one.

        Args:
            native: The context.

            slot: Of the sequence.

            now: Whatever the distance from the last one.
        """
        if not self._checkpoints.wanted or not slot.tokens:
            return
        last = slot.checkpoints[-1].length if slot.checkpoints else 0
        if now or len(slot.tokens) - last >= INTERVAL:
            self._checkpoints.take(native, slot)

    @property
    def has_checkpoints(self) -> bool:
        """Whether this cache needs places to go back to, and may keep them."""
        return self._checkpoints.wanted
