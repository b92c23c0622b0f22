"""
A manager whose models are all the one under test, each of a size of the test's own.

One instance of the engine serves them all, since some are slow to start; the manager
gets what looks like a new one for each model.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from llmcore import Stream
from llmcore.manager import ModelManager
from llmcore.spi import Backend, BackendModel, Progress
from llmcore.values import ModelParams
from llmcore_conformance.ledger import RecordingBackend, SeamLedger
from llmcore_conformance.probes import SIZE, NarrowBackend, NarrowModel, endless
from llmcore_conformance.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = 1 << 40
"""Bytes of a model of size 1: much more than those here really use."""

PROMPT = "Once upon a time there was"
LONG = 128
"""Tokens of an answer that nobody reads to its end."""


class House:
    """
    A manager, and the engines that were made for it.

    Args:
        target: What is under test.

        engine: The instance that does the work.

        patience: Seconds after which a wait counts as a hang.

        room: How many models of size 1 fit; None for any number.

        options: Of the manager.

    Attributes:
        ledgers: The record of the last engine of each model, by id.
    """

    def __init__(
        self,
        target: Target,
        engine: Backend,
        patience: float,
        room: int | None = None,
        **options: Any,
    ) -> None:
        budget = None if room is None else room * UNIT + UNIT // 2
        self.manager = ModelManager(budget=budget, headroom=0, name=None, **options)
        self.ledgers: dict[Hashable, SeamLedger] = {}
        self._target, self._engine, self._patience = target, engine, patience

    def engine(self, id: Hashable, size: int = 1) -> Backend:
        """What looks like a new engine, for a model of so many `UNIT`."""
        self.ledgers[id] = ledger = SeamLedger(self._patience)
        info = self._target.describe()
        return RecordingBackend(_Sized(self._engine, info, size), info, ledger)

    def load(self, id: Hashable, size: int = 1, **options: Any) -> None:
        """Load the model under test, as one of so many `UNIT`."""
        if "backend" not in options:
            options["backend"] = self.engine(id, size)
        usual = {"context_size": SIZE, "sequences": 1, "threads": 1, "gpu_layers": 0}
        source = options.pop("source", self._target.model_path)
        self.manager.load(id, source, reserve=size * UNIT, **usual | options)

    def load_slowly(self, id: Hashable, **options: Any) -> Any:
        """Begin a load that stays in the engine; the gate that lets it go on."""
        engine = self.engine(id)
        gate = self.ledgers[id].gate("load")
        self.load(id, backend=engine, wait=False, **options)
        gate.wait_entered()
        return gate

    def stream(self, id: Hashable, count: int = LONG, **options: Any) -> Stream:
        """A request for so many tokens, which holds the model until it is read."""
        bias = endless(self.manager.fetch_model(id)).logit_bias
        return self.manager.stream(
            id, PROMPT, max_tokens=count, logit_bias=bias, **options
        )

    def answers(self, id: Hashable) -> bool:
        """Whether a request gets an answer."""
        return bool(self.stream(id, 2).result.tokens)

    def status(self, id: Hashable) -> str:
        """Where a model is in its life."""
        return str(self.manager.info(id)["status"])

    @property
    def ids(self) -> list[Hashable]:
        """Of all models, the oldest first."""
        return [info["id"] for info in self.manager.list()]


class _Sized(NarrowBackend):
    """Loads models that claim a size; leaves the engine that does it open."""

    def __init__(self, real: Backend, info: Any, size: int) -> None:
        super().__init__(real, info.capabilities)
        self._size = size

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> BackendModel:
        return _SizedModel(super().load_model(path, params, progress), self._size)

    def close(self) -> None:
        """The next one needs it."""


class _SizedModel(NarrowModel):
    def __init__(self, real: BackendModel, size: int) -> None:
        super().__init__(real, real.info.capabilities)
        self._info = evolve(self._info, size_bytes=size * UNIT)
