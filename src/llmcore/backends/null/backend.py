"""The null backend itself: loads null models and pretends to have memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from llmcore.backends.null import INFO
from llmcore.backends.null.ledger import Call, Ledger
from llmcore.backends.null.model import NullModel, describe
from llmcore.backends.null.script import NullScript
from llmcore.errors import OperationCancelledError
from llmcore.spi import Backend, Progress
from llmcore.values import BackendInfo, Device, ModelParams

UNLIMITED = 1 << 40
"""Bytes that the device reports if the script sets no capacity."""

_process_lane: list[Call] = []


class NullBackend(Backend):
    """
    One instance of the null engine; lives until `close`.

    Args:
        script: What it is and does; None for an obedient one.
    """

    def __init__(self, script: NullScript | None = None) -> None:
        self.script = script or NullScript()
        self.ledger = Ledger()
        lane = _process_lane if self.script.exclusion == "process" else None
        self.handle = self.ledger.allocate("backend", lane=lane)

    @property
    def info(self) -> BackendInfo:
        """What the plugin declares, narrowed by the script."""
        return evolve(
            INFO,
            capabilities=self.script.capabilities,
            exclusion=self.script.exclusion,
        )

    def devices(self) -> Sequence[Device]:
        with self.ledger.use(self.handle, "devices"):
            self.perform("devices")
            capacity = self.script.capacity_bytes
            total = UNLIMITED if capacity is None else capacity
            free = max(0, total - self.ledger.used_bytes)
            return [Device(name="null", kind="cpu", total=total, free=free)]

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> NullModel:
        with self.ledger.use(self.handle, "load"):
            self.perform("load")
            wide = self.script.exclusion in ("device", "process")
            handle = self.ledger.allocate(
                "model",
                self.handle,
                size=self.script.model_bytes,
                capacity=self.script.capacity_bytes,
                lane=self.handle.lane if wide else None,
            )
            try:
                for share in (0.0, 0.5, 1.0):
                    if not progress(share):
                        raise OperationCancelledError(
                            f"loading was cancelled at {share:.0%}"
                        )
            except BaseException:
                self.ledger.release(handle, linger=self.script.release_delay)
                raise
            return NullModel(self, handle, describe(self.script))

    def close(self) -> None:
        with self.ledger.close(self.handle, "close_backend"):
            self.perform("close_backend")

    def perform(self, op: str, sequences: Sequence[int] = ()) -> None:
        """Do what the script says about a call: wait, crash, raise."""
        failure = self.script.reach(op, sequences)
        if failure is not None:
            raise failure.error
