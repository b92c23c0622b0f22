"""
A manager whose models are all the one under test, each of a size of the test's own. A
pytest plugin of the tests that use ``house``.

One instance of the engine serves them all, since some are slow to start; the manager
gets what looks like a new one for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from llmcore import Stream
from llmcore.manager import ModelManager
from llmcore.spi import Backend, BackendModel, Progress
from llmcore.testing import Gate
from llmcore.values import BackendInfo, ModelParams
from llmcore_conformance.ledger import RecordingBackend, SeamLedger
from llmcore_conformance.probes import SIZE, NarrowBackend, NarrowModel, endless
from llmcore_conformance.target import Target

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

    def load_slowly(self, id: Hashable, **options: Any) -> Gate:
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

    def __init__(self, real: Backend, info: BackendInfo, size: int) -> None:
        super().__init__(real, info.capabilities)
        self._size = size

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> BackendModel:
        real = self._real.load_model(path, params, progress)
        model = NarrowModel(real, self._capabilities)
        model._info = evolve(model.info, size_bytes=self._size * UNIT)
        return model

    def close(self) -> None:
        """The next one needs it."""


MakeHouse = Callable[..., House]


@pytest.fixture(scope="module")
def shared_engine(target: Target) -> Iterator[Backend]:
    """The instance that does the work for all models of a file of tests."""
    engine = target.create()
    yield engine
    with suppress(Exception):
        engine.close()


@pytest.fixture
def house(
    target: Target, shared_engine: Backend, patience: float
) -> Iterator[MakeHouse]:
    """``house(room)`` is a manager with room for so many models of size 1."""
    made: list[House] = []

    def make(room: int | None = None, **options: Any) -> House:
        made.append(House(target, shared_engine, patience, room, **options))
        return made[-1]

    yield make
    for each in made:
        with suppress(Exception):
            each.manager.dispose(timeout=patience)
