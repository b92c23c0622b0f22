"""A context at the checked seam, and its samplers; see `llmcore.testing.checked`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmcore.backends.null.batch_rules import position_faults
from llmcore.backends.null.ledger import Call
from llmcore.errors import StateError
from llmcore.spi import BackendContext, BackendSampler, Batch
from llmcore.testing.contract import (
    EMPTY,
    Entry,
    check_batch,
    check_given,
    check_logits,
)
from llmcore.values import (
    CacheKind,
    Capability,
    ContextMemory,
    ContextParams,
    ModelInfo,
    SamplingParams,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Bounds = tuple[int, int]


class CheckedContext(BackendContext):
    """
    Made by `CheckedModel.create_context`; lives as long as the context behind it.

    Args:
        real: The context.

        asked: What core asked for.

        info: Of its model.

        parent: The model.

        lane: The calls that must not overlap with its own; None for a new one.
    """

    def __init__(
        self,
        real: BackendContext,
        asked: ContextParams,
        info: ModelInfo,
        parent: Entry,
        lane: list[Call] | None,
    ) -> None:
        self._real = real
        self._info = info
        self._params = real.params
        check_given(parent.account, asked, self._params)
        self._rows: set[int] = set()
        self._lent: NDArray[np.float32] | None = None
        self._stopped: object | None = None
        self._entry = Entry(parent.account, "context", parent, lane)

    @property
    def params(self) -> ContextParams:
        found = self._real.params
        promise = "are the same every time"
        self._entry.backend("params", found == self._params, promise, found)
        return found

    def decode(self, batch: Batch) -> None:
        with self._call("decode"):
            self._rows = set()
            check_batch(self._entry, batch, self._params, self._info)
            expected = self._expected(batch)
            stopped = self._stopped
            self._real.decode(batch)
            deaf = stopped is not None and stopped is self._stopped
            promise = "raises DecodeAbortedError from abort(True) to abort(False)"
            self._entry.backend("decode", not deaf, promise, "it evaluated")
            for number, bounds in expected.items():
                self._assert_holds("decode", number, bounds)
            self._rows = {row for row, wanted in enumerate(batch.outputs) if wanted}

    def bounds(self, sequence: int) -> Bounds:
        with self._call("bounds", sequence):
            return self._bounds(sequence)

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        touched = range(self._params.sequences) if sequence is None else [sequence]
        with self._call("clear", *touched):
            whole = sequence is None or not data
            promise = "data is overwritten for all sequences only"
            self._entry.core("clear", whole, promise, f"sequence {sequence}")
            self._real.clear(sequence, data=data)
            for number in touched:
                self._assert_holds("clear", number, EMPTY)

    def memory(self) -> ContextMemory:
        with self._call("memory"):
            found = self._real.memory()
            right = isinstance(found, ContextMemory)
            right = right and found.kv_cache >= 0 and found.compute >= 0
            self._entry.backend("memory", right, "is a ContextMemory in bytes", found)
            return found

    def close(self) -> None:
        with self._entry.close(exclusive=True):
            self._spoil()
            self._real.close()

    # -- what is read from it --------------------------------------------------------

    def logits(self, row: int) -> NDArray[np.float32]:
        with self._call("logits", needs=Capability.LOGITS):
            self._check_row("logits", row)
            found = self._real.logits(row)
            check_logits(self._entry, found, self._info.vocab_size)
            self._lent = found.copy()
            return self._lent

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        op = "embedding"
        with self._call(op, sequence, needs=Capability.EMBEDDING):
            import numpy as np

            made_for = self._params.embeddings
            promise = "only a context made with embeddings=True is asked for them"
            self._entry.core(op, made_for, promise, "one without")
            found = self._real.embedding(sequence)
            size = self._info.embedding_size
            right = found.shape == (size,) and found.dtype == np.float32
            promise = f"is float32 numbers of shape ({size},)"
            self._entry.backend(op, right, promise, f"{found.dtype} {found.shape}")
            right = bool(np.isfinite(found).all())
            self._entry.backend(op, right, "its numbers are finite", found)
            return found

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> BackendSampler | None:
        op = "create_sampler"
        with self._call(op, needs=Capability.NATIVE_SAMPLING):
            found = self._real.create_sampler(params, seed)
            right = found is None or isinstance(found, BackendSampler)
            self._entry.backend(op, right, "returns a BackendSampler or None", found)
            if found is None:
                return None
            return CheckedSampler(found, self._entry, self._info.vocab_size)

    def sample(self, row: int, sampler: BackendSampler) -> int:
        op = "sample"
        with self._call(op, needs=Capability.NATIVE_SAMPLING):
            self._check_row(op, row)
            promise = "the sampler is an open one of this context"
            own = isinstance(sampler, CheckedSampler) and sampler.of(self._entry)
            self._entry.core(op, own, promise, sampler)
            assert isinstance(sampler, CheckedSampler)
            found = self._real.sample(row, sampler.real)
            right = 0 <= found < self._info.vocab_size
            self._entry.backend(op, right, "the token is in the vocabulary", found)
            return found

    # -- its cache -------------------------------------------------------------------

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        op = "remove"
        with self._call(op, sequence, needs=Capability.PARTIAL_REMOVE):
            right = start >= 0 and (end is None or end > start)
            promise = "0 <= start < end"
            self._entry.core(op, right, promise, f"start={start}, end={end}")
            before = self._bounds(sequence)
            done = self._real.remove(sequence, start, end)
            self._entry.backend(op, isinstance(done, bool), "returns a bool", done)
            left = _without(before, start, end) if done else [before]
            self._assert_holds(op, sequence, *left)
            return done

    def copy(self, source: int, target: int) -> None:
        op = "copy"
        with self._call(op, source, target, needs=Capability.COPY):
            held, there = self._bounds(source), self._bounds(target)
            promise = "the target is empty and not the source"
            right = there == EMPTY and source != target
            self._entry.core(op, right, promise, f"sequence {target} holds {there}")
            self._real.copy(source, target)
            self._assert_holds(op, source, held)
            self._assert_holds(op, target, held)

    @property
    def can_shift(self) -> bool:
        return self._real.can_shift

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        op = "shift"
        with self._call(op, sequence, needs=Capability.SHIFT):
            right = self.can_shift and 0 <= start < end and start + delta >= 0
            promise = "it can shift, and the range is one before and after"
            asked = f"start={start}, end={end}, delta={delta}"
            self._entry.core(op, right, promise, asked)
            before = self._bounds(sequence)
            moved = [p + delta if start <= p < end else p for p in before]
            self._real.shift(sequence, start, end, delta)
            self._assert_holds(op, sequence, (moved[0], moved[1]))

    def save_state(self, sequence: int) -> bytes:
        op = "save_state"
        with self._call(op, sequence, needs=Capability.STATE_IO):
            found = self._real.save_state(sequence)
            self._entry.backend(op, isinstance(found, bytes), "returns bytes", found)
            return found

    def load_state(self, sequence: int, data: bytes) -> None:
        op = "load_state"
        with self._call(op, sequence, needs=Capability.STATE_IO):
            before = self._bounds(sequence)
            try:
                self._real.load_state(sequence, data)
            except StateError:
                self._assert_holds(op, sequence, before, EMPTY)
                raise
            self._bounds(sequence)

    def abort(self, stop: bool) -> None:
        with self._entry.call("abort"):
            self._entry.declared("abort", Capability.ABORT, self._info)
            self._stopped = None  # from here on nobody knows, until it returns
            self._real.abort(stop)
            self._stopped = object() if stop else None

    # -- what is asserted ------------------------------------------------------------

    @contextmanager
    def _call(
        self, op: str, *sequences: int, needs: Capability | None = None
    ) -> Iterator[None]:
        with self._entry.call(op, exclusive=True):
            self._spoil()
            if needs is not None:
                self._entry.declared(op, needs, self._info)
            most = self._params.sequences
            wrong = [number for number in sequences if not 0 <= number < most]
            self._entry.core(op, not wrong, f"sequences are below {most}", wrong)
            yield

    def _spoil(self) -> None:
        """Make logits that core reads after the next call unmistakably wrong."""
        if self._lent is not None:
            self._lent.fill(float("nan"))
            self._lent = None

    def _check_row(self, op: str, row: int) -> None:
        promise = "row is an output of the last batch that was evaluated"
        self._entry.core(op, row in self._rows, promise, row)

    def _expected(self, batch: Batch) -> dict[int, Bounds]:
        """What the sequences of a batch will hold; asserts its positions."""
        held = {number: self._bounds(number) for number in set(batch.sequences)}
        for fault in position_faults(batch, lambda number: held[number][1] + 1):
            self._entry.core("decode", False, fault.promise, fault.seen)
        for position, number in zip(batch.positions, batch.sequences, strict=True):
            held[number] = max(0, held[number][0]), position
        if self._info.cache_kind is CacheKind.NONE:
            return dict.fromkeys(held, EMPTY)
        return held

    def _bounds(self, sequence: int) -> Bounds:
        found = self._real.bounds(sequence)
        right = (
            isinstance(found, tuple)
            and len(found) == 2
            and all(isinstance(position, int) for position in found)
            and (found == EMPTY or 0 <= found[0] <= found[1])
        )
        promise = f"are the first and last position, or {EMPTY}"
        self._entry.backend("bounds", right, promise, found)
        return found

    def _assert_holds(self, op: str, sequence: int, *expected: Bounds) -> None:
        """The bounds are one of these; a cache that forgets may begin later."""
        found = self._bounds(sequence)
        if self._info.cache_kind is CacheKind.FULL or found == EMPTY:
            right = found in expected
        else:
            right = any(e[0] <= found[0] and e[1] == found[1] for e in expected)
        promise = f"sequence {sequence} then has the bounds {expected[0]}"
        self._entry.backend(op, right, promise, found)


class CheckedSampler(BackendSampler):
    """
    A native sampler at the checked seam.

    Args:
        real: The sampler.

        context: That it lives on.

        size: Of the vocabulary.
    """

    def __init__(self, real: BackendSampler, context: Entry, size: int) -> None:
        self.real = real
        self._size = size
        self._context = context
        lane = context.handle.lane
        self._entry = Entry(context.account, "sampler", context, lane)

    def of(self, context: Entry) -> bool:
        """Whether it can be used there."""
        return self._context is context and not self._entry.handle.closing

    def accept(self, token: int) -> None:
        with self._entry.call("accept", exclusive=True):
            right = 0 <= token < self._size
            promise = f"tokens are in the vocabulary of {self._size}"
            self._entry.core("accept", right, promise, token)
            self.real.accept(token)

    def close(self) -> None:
        with self._entry.close(exclusive=True):
            self.real.close()


def _without(held: Bounds, start: int, end: int | None) -> list[Bounds]:
    """What may be held after positions ``start <= p < end`` were removed."""
    first, last = held
    if start > last or (end is not None and end <= first):
        return [held]
    if end is not None and end <= last:
        return [(end, last) if start <= first else held]
    left = max(0, min(first, start - 1)), start - 1
    return [EMPTY, left] if start <= first else [left]
