"""The null context: caches, evaluation and everything that is read from them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from attrs import evolve

from llmcore.backends.null import language, vocabulary
from llmcore.backends.null.batch_rules import Fault, position_faults, shape_faults
from llmcore.backends.null.cache import Cells
from llmcore.backends.null.ledger import Ledger, ViolationKind
from llmcore.backends.null.sampler import NullSampler, expresses
from llmcore.errors import (
    BackendError,
    CapabilityError,
    ContextCreationError,
    DecodeAbortedError,
    DecodeError,
)
from llmcore.spi import BackendContext, BackendSampler, Batch
from llmcore.values import (
    CacheKind,
    Capability,
    ContextMemory,
    ContextParams,
    SamplingParams,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.backends.null.model import NullModel


class NullContext(BackendContext):
    """Caches for some sequences; lives until `close`."""

    def __init__(self, model: NullModel, params: ContextParams) -> None:
        if not isinstance(params.context_size, int):
            raise ContextCreationError("context_size must be a number at the seam")
        self.model = model
        self.script = model.backend.script
        self.ledger: Ledger = model.backend.ledger
        self._size = params.context_size
        self._params = evolve(
            params,
            micro_batch_size=min(params.micro_batch_size, params.batch_size),
            threads=params.threads or 1,
            threads_batch=params.threads_batch or params.threads or 1,
        )
        kept = params.context_size * params.sequences * self.script.kv_bytes_per_token
        self.handle = self.ledger.allocate(
            "context",
            model.handle,
            size=kept,
            capacity=self.script.capacity_bytes,
            lane=None if self.script.exclusion == "context" else model.handle.lane,
        )
        info = model.info
        self._cells = [
            Cells(info.cache_kind, self.script.window, info.name.encode())
            for _ in range(params.sequences)
        ]
        # Of each output row: the hash of its sequence's cache, and the best token.
        self._rows: dict[int, tuple[int, int]] = {}
        self._lent: array[float] | None = None
        self._stop = False

    @property
    def params(self) -> ContextParams:
        return self._params

    def decode(self, batch: Batch) -> None:
        with self._call("decode"):
            self._rows = {}
            self.ledger.record(batch)
            failure = self.script.reach("decode", batch.sequences, lambda: self._stop)
            if self._stop:
                raise DecodeAbortedError(
                    "the evaluation was aborted: call abort(False)"
                )
            if self.model.info.cache_kind is CacheKind.NONE:
                self._forget(batch)
            self._check(batch)
            self._apply(batch, None if failure is None else failure.applied)
            if failure is not None:
                self._rows = {}
                raise failure.error

    def bounds(self, sequence: int) -> tuple[int, int]:
        with self._call("bounds", sequence):
            self.perform("bounds", (sequence,))
            return self._cells[sequence].bounds()

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        touched = range(len(self._cells)) if sequence is None else (sequence,)
        with self._call("clear", *touched):
            self.perform("clear", touched)
            for number in touched:
                self._cells[number].clear()

    def memory(self) -> ContextMemory:
        with self._call("memory"):
            self.perform("memory")
            return ContextMemory(kv_cache=self.handle.size)

    def close(self) -> None:
        linger = self.script.release_delay
        with self.ledger.close(
            self.handle, "close_context", exclusive=True, linger=linger
        ):
            self._spoil()
            self.perform("close_context")

    def logits(self, row: int) -> NDArray[np.float32]:
        with self._call("logits", needs=Capability.LOGITS):
            import numpy as np

            self.perform("logits")
            self._lent = language.logits(*self._row("logits", row))
            return np.frombuffer(self._lent, dtype=np.float32)

    def create_sampler(self, params: SamplingParams, seed: int) -> NullSampler | None:
        with self._call("create_sampler", needs=Capability.NATIVE_SAMPLING):
            self.perform("create_sampler")
            known = expresses(params, self.model.info.vocab_size)
            return NullSampler(self, params, seed) if known else None

    def sample(self, row: int, sampler: BackendSampler) -> int:
        with self._call("sample", needs=Capability.NATIVE_SAMPLING):
            self.perform("sample")
            own = self._own(sampler)
            token = own.draw(language.logits(*self._row("sample", row)))
            own.remember(token)
            return token

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        with self._call("remove", sequence, needs=Capability.PARTIAL_REMOVE):
            self.perform("remove", (sequence,))
            return self._cells[sequence].remove(start, end, self.script.lie)

    def copy(self, source: int, target: int) -> None:
        with self._call("copy", source, target, needs=Capability.COPY):
            self.perform("copy", (source, target))
            if self._cells[target]:
                self._violate(ViolationKind.TARGET_NOT_EMPTY, "copy", f"{target}")
            self._cells[target].assign(self._cells[source])

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        with self._call("shift", sequence, needs=Capability.SHIFT):
            self.perform("shift", (sequence,))
            self._cells[sequence].shift(start, end, delta)

    def save_state(self, sequence: int) -> bytes:
        with self._call("save_state", sequence, needs=Capability.STATE_IO):
            self.perform("save_state", (sequence,))
            return self._cells[sequence].save()

    def load_state(self, sequence: int, data: bytes) -> None:
        with self._call("load_state", sequence, needs=Capability.STATE_IO):
            self.perform("load_state", (sequence,))
            if self._cells[sequence].is_foreign(data):
                self._violate(ViolationKind.FOREIGN, "load_state", "of another model")
            self._cells[sequence].load(data, self._size)

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        with self._call("embedding", sequence, needs=Capability.EMBEDDING):
            import numpy as np

            self.perform("embedding", (sequence,))
            if not self._params.embeddings:
                raise CapabilityError(
                    "the context was created without embeddings: "
                    "create one with embeddings=True"
                )
            seed = self._cells[sequence].seed()
            size = self.model.info.embedding_size
            return np.array(language.embedding(seed, size), dtype=np.float32)

    def abort(self, stop: bool) -> None:
        with self.ledger.use(self.handle, "abort"):
            self._demand(Capability.ABORT, "abort")
            self._stop = stop
            self.script.wake()

    def perform(self, op: str, sequences: Sequence[int] = ()) -> None:
        """Do what the script says about a call: wait, crash, raise."""
        self.model.backend.perform(op, sequences)

    # -- inside ----------------------------------------------------------------------

    @contextmanager
    def _call(
        self, op: str, *sequences: int, needs: Capability | None = None
    ) -> Iterator[None]:
        with self.ledger.use(self.handle, op, exclusive=True):
            self._spoil()
            if needs is not None:
                self._demand(needs, op)
            for number in sequences:
                if not 0 <= number < len(self._cells):
                    self._violate(ViolationKind.SEQUENCE_RANGE, op, f"{number}")
                    raise BackendError(
                        f"sequence must be below {len(self._cells)}, got {number}"
                    )
            yield

    def _spoil(self) -> None:
        """Make logits that are read after the next call unmistakably wrong."""
        if self._lent is not None:
            self._lent[:] = array("f", [math.nan]) * len(self._lent)
            self._lent = None

    def _demand(self, capability: Capability, op: str) -> None:
        if capability not in self.model.info.capabilities:
            self._violate(ViolationKind.UNDECLARED, op, capability)
            raise CapabilityError(
                f"model {self.model.info.name!r} does not declare {capability}: "
                f"do not call {op}"
            )

    def _violate(self, kind: ViolationKind, op: str, detail: str) -> None:
        self.ledger.violate(kind, op, self.handle, detail)

    def _own(self, sampler: BackendSampler) -> NullSampler:
        if not isinstance(sampler, NullSampler):
            self._violate(ViolationKind.FOREIGN, "sample", repr(sampler))
            raise BackendError("the sampler is of another backend: create one here")
        if sampler.context is not self:
            self._violate(ViolationKind.FOREIGN, "sample", f"{sampler.handle}")
        if sampler.handle.closing:
            self.ledger.violate(ViolationKind.USE_AFTER_FREE, "sample", sampler.handle)
        return sampler

    def _row(self, op: str, row: int) -> tuple[int, int]:
        if row not in self._rows:
            self._violate(ViolationKind.ROW, op, f"{row}")
            raise BackendError(
                f"row {row} of the last batch has no output: ask for it in outputs"
            )
        return self._rows[row]

    # -- batches ---------------------------------------------------------------------

    def _forget(self, batch: Batch) -> None:
        for number in set(batch.sequences):
            if 0 <= number < len(self._cells):
                self._cells[number].clear()

    def _apply(self, batch: Batch, limit: int | None) -> None:
        rows = list(zip(*batch, strict=True))[:limit]
        for row, (token, position, number, output) in enumerate(rows):
            cells = self._cells[number]
            cells.append(position, token)
            if output:
                seed = cells.seed()
                best = language.next_token(seed, cells.tokens, self.script.answer)
                self._rows[row] = seed, best

    def _check(self, batch: Batch) -> None:
        """Refuse a batch as llama.cpp does: all or nothing."""
        for fault in shape_faults(batch, self._params, vocabulary.VOCAB_SIZE):
            self._refuse(fault)
        for fault in position_faults(batch, lambda n: self._cells[n].next_position):
            self._refuse(fault)
        for number in set(batch.sequences):
            needed = len(self._cells[number]) + list(batch.sequences).count(number)
            if needed > self._size and not self._slides:
                raise DecodeError(
                    f"no room for {needed} tokens in sequence {number} of "
                    f"{self._size}: remove some, or make a larger context"
                )

    @property
    def _slides(self) -> bool:
        kind = self.model.info.cache_kind
        return kind is CacheKind.SLIDING_WINDOW and self.script.window < self._size

    def _refuse(self, fault: Fault) -> NoReturn:
        self._violate(fault.kind, "decode", str(fault))
        raise DecodeError(f"the engine refuses the batch: {fault}")
