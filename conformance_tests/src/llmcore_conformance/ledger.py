"""
The oracle outside the subject: records all that core does at the seam of any backend.

`RecordingBackend` stands between core and a real backend. A `SeamLedger` keeps the
account, can hold calls inside the engine (`SeamLedger.gate`) and make them fail
(`SeamLedger.fail`); core cannot tell it from the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmcore import spi
from llmcore.backends.null.batch_rules import position_faults, shape_faults
from llmcore.testing import Gate, Ledger, NullScript, Violation, ViolationKind
from llmcore.values import (
    BackendInfo,
    ContextMemory,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
    SamplingParams,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.backends.null.ledger import Call, Handle

_process_lane: list[Call] = []


class SeamLedger(Ledger):
    """
    What happened at the seam of one backend: `events`, `live`, `calls`, `violations`.

    Args:
        patience: Seconds after which a wait in a test counts as a hang.
    """

    def __init__(self, patience: float = 30.0) -> None:
        super().__init__()
        self.patience = patience
        self.script = NullScript()
        self.deaf = False
        self._during: dict[str, Callable[[], object]] = {}

    def gate(self, op: str, *, nth: int = 1, abortable: bool = True) -> Gate:
        """
        Hold calls of an operation inside the engine, until the gate opens.

        Args:
            op: One of `llmcore.testing.OPS`.

            nth: The first call to hold, counted from now.

            abortable: Whether `abort` opens the gate of a decode as well.
        """
        self.deaf = not abortable
        return self.script.gate(op, nth=nth, timeout=self.patience)

    def fail(
        self,
        op: str,
        error: Exception | type[Exception] | None = None,
        *,
        nth: int = 1,
        times: int | None = 1,
        applied: int = 0,
        sequence: int | None = None,
    ) -> None:
        """
        Make calls of an operation raise; one that frees something still frees it.

        Args:
            op: One of `llmcore.testing.OPS`.

            error: What to raise; None for what the seam names for it.

            nth: The first call to fail, counted from now.

            times: How many fail from there on; None for all.

            applied: Tokens of the batch that are evaluated first (decode only).

            sequence: Count only calls that touch this sequence.
        """
        self.script.fail(
            op, nth=nth, times=times, error=error, applied=applied, sequence=sequence
        )

    def during(self, op: str, work: Callable[[], object]) -> None:
        """
        Run something in the thread of the next call of an operation, inside it.

        Args:
            op: One of `llmcore.testing.OPS`, or ``"loaded"``: at the end of a load.

            work: What to run, once.
        """
        self._during[op] = work

    def found(self, *kinds: ViolationKind) -> list[Violation]:
        """The broken promises of these kinds."""
        return [found for found in self.violations if found.kind in kinds]

    def order(self, *ops: str) -> list[str]:
        """The calls of these operations, in the order in which they entered."""
        return [event.op for event in self.events if event.op in ops]

    def perform(self, op: str, sequences: Sequence[int] = ()) -> None:
        """Wait and fail as scripted; for the proxies."""
        self.interject(op)
        failure = self.script.reach(op, sequences)
        if failure is not None:
            raise failure.error

    def interject(self, op: str) -> None:
        """Run what `during` asked for; for the proxies."""
        work = self._during.pop(op, None)
        if work is not None:
            work()


class RecordingBackend(spi.Backend):
    """
    A backend that passes everything on to a real one and writes it down.

    Args:
        real: The backend.

        info: What it declares.

        ledger: Where to write.
    """

    def __init__(
        self, real: spi.Backend, info: BackendInfo, ledger: SeamLedger
    ) -> None:
        self.real = real
        self.info = info
        self.ledger = ledger
        lane = _process_lane if info.exclusion == "process" else None
        self.handle = ledger.allocate("backend", lane=lane)

    def devices(self) -> Sequence[Device]:
        with self.ledger.use(self.handle, "devices"):
            self.ledger.perform("devices")
            return self.real.devices()

    def load_model(
        self, path: Path | None, params: ModelParams, progress: spi.Progress
    ) -> RecordingModel:
        with self.ledger.use(self.handle, "load"):
            self.ledger.perform("load")
            model = RecordingModel(self, self.real.load_model(path, params, progress))
            self.ledger.interject("loaded")
            return model

    def close(self) -> None:
        with self.ledger.close(self.handle, "close_backend"):
            self.real.close()
            self.ledger.perform("close_backend")


class RecordingModel(spi.BackendModel):
    """A loaded model at the recorded seam."""

    def __init__(self, backend: RecordingBackend, real: spi.BackendModel) -> None:
        self.real = real
        self.backend = backend
        self.ledger = backend.ledger
        wide = backend.info.exclusion in ("device", "process")
        self.handle = self.ledger.allocate(
            "model", backend.handle, lane=backend.handle.lane if wide else None
        )

    @property
    def info(self) -> ModelInfo:
        return self.real.info

    def tokenize(self, text: bytes) -> list[int]:
        with self.ledger.use(self.handle, "tokenize"):
            self.ledger.perform("tokenize")
            return self.real.tokenize(text)

    def piece(self, token: int) -> bytes:
        with self.ledger.use(self.handle, "piece"):
            self.ledger.perform("piece")
            return self.real.piece(token)

    def create_context(self, params: ContextParams) -> RecordingContext:
        with self.ledger.use(self.handle, "create_context"):
            self.ledger.perform("create_context")
            return RecordingContext(self, self.real.create_context(params))

    def close(self) -> None:
        with self.ledger.close(self.handle, "close_model"):
            self.real.close()
            self.ledger.perform("close_model")


class RecordingSampler(spi.BackendSampler):
    """A native sampler at the recorded seam."""

    def __init__(self, context: RecordingContext, real: spi.BackendSampler) -> None:
        self.real = real
        self.ledger = context.ledger
        self.handle = self.ledger.allocate(
            "sampler", context.handle, lane=context.handle.lane
        )

    def accept(self, token: int) -> None:
        with self.ledger.use(self.handle, "accept", exclusive=True):
            self.ledger.perform("accept")
            self.real.accept(token)

    def close(self) -> None:
        with self.ledger.close(self.handle, "close_sampler", exclusive=True):
            self.real.close()
            self.ledger.perform("close_sampler")


class RecordingContext(spi.BackendContext):
    """A context at the recorded seam; checks each batch against core's promises."""

    def __init__(self, model: RecordingModel, real: spi.BackendContext) -> None:
        self.real = real
        self.model = model
        self.ledger = model.ledger
        alone = model.backend.info.exclusion == "context"
        self.handle: Handle = self.ledger.allocate(
            "context", model.handle, lane=None if alone else model.handle.lane
        )
        self._stop = False

    @property
    def params(self) -> ContextParams:
        return self.real.params

    def decode(self, batch: spi.Batch) -> None:
        with self._call("decode", perform=False):
            ledger = self.ledger
            ledger.record(batch)
            self._check(batch)
            ledger.interject("decode")
            failure = ledger.script.reach(
                "decode", batch.sequences, lambda: self._stop and not ledger.deaf
            )
            if failure is None:
                self.real.decode(batch)
                return
            if failure.applied:
                head = [column[: failure.applied] for column in batch]
                self.real.decode(spi.Batch(*head))  # type: ignore[arg-type]
            raise failure.error

    def bounds(self, sequence: int) -> tuple[int, int]:
        with self._call("bounds", sequence):
            return self.real.bounds(sequence)

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        touched = () if sequence is None else (sequence,)
        with self._call("clear", *touched):
            self.real.clear(sequence, data=data)

    def memory(self) -> ContextMemory:
        with self._call("memory"):
            return self.real.memory()

    def close(self) -> None:
        with self.ledger.close(self.handle, "close_context", exclusive=True):
            self.real.close()
            self.ledger.perform("close_context")

    def logits(self, row: int) -> NDArray[np.float32]:
        with self._call("logits"):
            return self.real.logits(row)

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> spi.BackendSampler | None:
        with self._call("create_sampler"):
            sampler = self.real.create_sampler(params, seed)
            return None if sampler is None else RecordingSampler(self, sampler)

    def sample(self, row: int, sampler: spi.BackendSampler) -> int:
        with self._call("sample"):
            assert isinstance(sampler, RecordingSampler)
            if sampler.handle.closing:
                self._violate(ViolationKind.USE_AFTER_FREE, "sample", "closed sampler")
            return self.real.sample(row, sampler.real)

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        with self._call("remove", sequence):
            return self.real.remove(sequence, start, end)

    def copy(self, source: int, target: int) -> None:
        with self._call("copy", source, target):
            if self.real.bounds(target) != (-1, -1):
                self._violate(ViolationKind.TARGET_NOT_EMPTY, "copy", str(target))
            self.real.copy(source, target)

    @property
    def can_shift(self) -> bool:
        return self.real.can_shift

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        with self._call("shift", sequence):
            self.real.shift(sequence, start, end, delta)

    def save_state(self, sequence: int) -> bytes:
        with self._call("save_state", sequence):
            return self.real.save_state(sequence)

    def load_state(self, sequence: int, data: bytes) -> None:
        with self._call("load_state", sequence):
            self.real.load_state(sequence, data)

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        with self._call("embedding", sequence):
            return self.real.embedding(sequence)

    def abort(self, stop: bool) -> None:
        with self.ledger.use(self.handle, "abort"):
            self._stop = stop
            self.real.abort(stop)
            self.ledger.script.wake()

    # -- the account -------------------------------------------------------------------

    @contextmanager
    def _call(self, op: str, *sequences: int, perform: bool = True) -> Iterator[None]:
        with self.ledger.use(self.handle, op, exclusive=True):
            for number in sequences:
                self._check_sequence(op, number)
            if perform:
                self.ledger.perform(op, sequences)
            yield

    def _violate(self, kind: ViolationKind, op: str, detail: str) -> None:
        self.ledger.violate(kind, op, self.handle, detail)

    def _check_sequence(self, op: str, number: int) -> None:
        if not 0 <= number < self.params.sequences:
            self._violate(ViolationKind.SEQUENCE_RANGE, op, f"sequence {number}")

    def _check(self, batch: spi.Batch) -> None:
        size = self.model.info.vocab_size
        faults = [*shape_faults(batch, self.params, size)]
        for fault in faults or position_faults(batch, self._next_position):
            self._violate(fault.kind, "decode", str(fault))

    def _next_position(self, sequence: int) -> int:
        return self.real.bounds(sequence)[1] + 1
