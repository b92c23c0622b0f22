"""
`Llama`: one independent instance of an engine, and the root of everything on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcore.errors import (
    BackendUnavailableError,
    OperationCancelledError,
    ParameterError,
)
from llmcore.lifecycle import (
    Exclusion,
    Node,
    Operation,
    Resource,
    ResourceInfo,
    observe,
    resources,
)
from llmcore.memory import (
    RAM,
    Budget,
    Footprint,
    Reservation,
    Share,
    expected_weights,
    releasing,
    settled,
)
from llmcore.memory.machine import MemoryState
from llmcore.model import Model
from llmcore.plugins import Gpu, emit_event
from llmcore.plugins.gpu import gpus_of, obstacle_to, way_to
from llmcore.plugins.support import require
from llmcore.seam import Translator
from llmcore.sources import Source
from llmcore.sources.loading import Load
from llmcore.spi import Backend
from llmcore.telemetry import span
from llmcore.twins import unless_cancelled
from llmcore.values import BackendInfo, Capability, Device, ModelParams, evolve, merge

if TYPE_CHECKING:
    from llmcore.memory.ladder import Room, Step

Progress = Callable[[float], object]
"""Called with the share loaded, 0.0 to 1.0; returning False cancels the load."""


def _tell_plugins(step: str, node: Node) -> None:
    parent = None if node.parent is None else node.parent.number
    emit_event(node.kind, step, node.label, node.number, parent)


observe(_tell_plugins)

_process_locks: dict[str, Exclusion] = {}
if hasattr(os, "register_at_fork"):  # what threads of the parent hold stays there
    os.register_at_fork(after_in_child=_process_locks.clear)


class Llama(Resource):
    """
    Lives as long as you need the engine; one per application is usual.

    Two instances share nothing. Any thread may use it.

    Attributes:
        backend: What its plugin says about the engine.

        gpu: The way to the GPU that it uses, such as ``"cuda"``, or False if it uses
            none. ``"auto"`` if nobody asked the engine, which is then one of core's or
            the application's own.

        budget: What models and contexts on it may use; None for as much as there is.
    """

    def __init__(
        self,
        backend: Backend,
        info: BackendInfo,
        *,
        gpu: Gpu = "auto",
        budget: Budget | Share | None = None,
    ) -> None:
        self.backend: BackendInfo = info
        self.budget = budget
        self.gpu: Gpu | str = gpu
        self._off_gpu = gpu is False
        translate = Translator(info.name)
        super().__init__(
            "llama",
            handle=backend,
            teardown=_close,
            name=info.name,
            translate=translate,
        )
        translate.root = self._node

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The most that a model can have here; `Model.capabilities` is what it has."""
        return self.backend.capabilities

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} gpu={self.gpu!r}>"

    def require(self, *capabilities: Capability) -> None:
        """
        Make sure, before a model is loaded, that one could have these capabilities.

        Raises:
            CapabilityError: One of them is not declared; names it.
        """
        require(self._node.label, self.capabilities, capabilities)

    def _find_gpu(self) -> None:
        """Make sure that what was asked for is there, and keep what is there."""
        devices = self.devices()
        if obstacle := obstacle_to(self.gpu, devices):
            raise BackendUnavailableError(
                f"backend {self.backend.name!r} cannot be used: {obstacle}"
            )
        if self.gpu == "auto":
            gpus = gpus_of(devices)
            self.gpu = way_to(gpus[0]) if gpus else False

    def load_model(
        self,
        path: str | os.PathLike[str] | Source | None = None,
        *,
        progress: Progress | None = None,
        params: ModelParams | None = None,
        fit: Sequence[Step] | bool = False,
        within: Reservation | None = None,
        **fields: Any,
    ) -> Model:
        """
        Load a model file. Several loads may run at once.

        Args:
            path: The file, or the source to fetch it from, such as
                ``"hf:owner/repository/file.gguf"`` (`llmcore.sources.resolve` has more
                options); None only for a backend that needs none.

            progress: Called with 0.0 to 1.0, in this thread; returning False cancels.
                A download is its first nine tenths.

            params: How to load it.

            fit: What may be given up if memory is short: True for the usual ladder
                (`llmcore.memory.ladder.LADDER`), or steps of your own. What you give
                stays as it is.

            within: A reservation to take its memory from, where there is a budget.

            fields: Or the fields of `ModelParams` one by one, over ``params``.

        Raises:
            InsufficientMemoryError: The engine, the budget or a limit of this process
                has not enough; nothing was loaded.

            ModelLoadError: Names the path and the reason; nothing is left behind. A
                `SourceError` if the model cannot be fetched.

            OperationCancelledError: ``progress`` returned False.

            CapabilityError: Something was asked for that this build cannot do.

            ParameterError: ``gpu_layers`` although this instance is to use no GPU.

            DisposedError: Also when this object is disposed during the load.
        """
        from llmcore.memory import choosing

        pinned = choosing.given(ModelParams, params, fields)
        params = self._placed(merge(ModelParams, params, fields))
        with span("load", self._node, path=str(path or "")) as told:
            load = Load(progress)
            file = self._checked(self._fetched(path, load))
            what = "a model" if file is None else f"model {file.name!r}"
            room, placing = self._rooms(file, params, what, within, fit)
            model, fitted = choosing.load(
                choosing.model_plan(params, pinned),
                lambda plan: self._load(file, plan.model, load, within),
                room,
                fit,
                what=what,
                placing=placing,
            )
            model.fitted = fitted
            told.add(model=model._node.name, bytes=model.info.size_bytes)
            return model

    def _rooms(
        self,
        file: Path | None,
        params: ModelParams,
        what: str,
        within: Reservation | None,
        fit: Sequence[Step] | bool,
    ) -> tuple[Room, Room]:
        """What there is for a model, and for its layers with a context."""
        from llmcore.memory import choosing, limits
        from llmcore.memory.estimate import estimate, shape_of
        from llmcore.memory.ladder import Plan, Room

        budget: Budget | Share | None = self.budget
        devices = self._placing(params)
        if budget is None and (fit or gpus_of(devices)):
            budget = choosing.free_now(devices)
        looked_at = budget is not None or limits.bounded() or params.mlock
        if not looked_at or file is None or self.backend.formats != ("gguf",):
            return Room(), Room()
        shape = shape_of(file)
        room = Room(
            estimate=lambda plan: estimate(shape, model=plan.model, devices=devices),
            shortage=choosing.shortages(what, budget, within),
            layers=choosing.gpu_layers(shape, devices),
        )
        if params.mlock:
            limits.check_lock(file, room.needs(Plan(model=params)).on(RAM))
        with_context = evolve(
            room,
            estimate=lambda plan: estimate(
                shape, model=plan.model, context=plan.context, devices=devices
            ),
        )
        return room, with_context

    def _load(
        self,
        file: Path | None,
        params: ModelParams,
        load: Load,
        within: Reservation | None,
    ) -> Model:
        reservation = self._reserve(file, params, within)
        with releasing(reservation), self._cancelling(load) as operation:
            with self._use(operation) as backend:
                native = backend.load_model(file, params, load.report)
                exclusion = self._exclusion()
                model = Model(self, native, file, exclusion, params, reservation)
            return settled(model, reservation)

    @contextmanager
    def _cancelling(self, load: Load) -> Iterator[Operation]:
        """An operation that its progress, or the disposal of this object, cancels."""
        with Operation(self._node, load.cancel) as operation:
            try:
                yield operation
            except OperationCancelledError:
                load.reraise()
                self._check()
                raise

    def _reserve(
        self, file: Path | None, params: ModelParams, within: Reservation | None
    ) -> Reservation | None:
        """Bytes for a model, before it is loaded."""
        if self.budget is None:
            return None
        if file is None:
            return self.budget.reserve(Footprint(), "model", within=within)
        expected = expected_weights(
            file, self.backend.formats, params, partial(self._placing, params)
        )
        return self.budget.reserve(expected, f"model {file.name!r}", within=within)

    async def aload_model(
        self,
        path: str | os.PathLike[str] | Source | None = None,
        *,
        progress: Progress | None = None,
        params: ModelParams | None = None,
        **fields: Any,
    ) -> Model:
        """
        `load_model` without blocking the event loop; cancelling the task cancels it.

        ``progress`` is called in a worker thread.
        """
        cancelled = threading.Event()

        def report(share: float) -> object:
            if cancelled.is_set():
                return False
            return None if progress is None else progress(share)

        load = partial(self.load_model, path, progress=report, params=params, **fields)
        return await unless_cancelled(load, cancelled.set, undo=Model.dispose)

    def _placed(self, params: ModelParams) -> ModelParams:
        """The parameters with no layer on a GPU that may not or cannot be used."""
        if params.gpu_layers == "auto":
            return evolve(params, gpu_layers=0) if self._off_gpu else params
        if params.gpu_layers and self._off_gpu:
            raise ParameterError(
                f"gpu_layers={params.gpu_layers} but {self._node.label} was made with "
                "gpu=False: leave one of the two out"
            )
        if params.gpu_layers:
            self.require(Capability.GPU)
        return params

    def _fetched(
        self, name: str | os.PathLike[str] | Source | None, load: Load
    ) -> Path | None:
        """The file that a name means, from elsewhere if need be."""
        with self._cancelling(load):
            return None if name is None else load.file_of(name)

    def _checked(self, path: Path | None) -> Path | None:
        """The path, after a look at the file's header."""
        self._check()
        if not self.backend.formats:
            return path
        if path is None:
            raise TypeError(f"the {self.backend.name} backend needs a model file")
        from llmcore.model_file import check_model_file

        check_model_file(path, self.backend.formats)
        return path

    def _exclusion(self) -> Callable[[], Exclusion]:
        """How the contexts of one model get their lock, by the declared scope."""
        scope = self.backend.exclusion
        if scope == "context":
            return Exclusion
        if scope == "model":
            lock = Exclusion()
        else:  # one engine has its devices and its process to itself
            lock = _process_locks.setdefault(self.backend.name, Exclusion())
        return lambda: lock

    def devices(self) -> Sequence[Device]:
        """The processors this build can use, with their memory as it is now."""
        with self._use() as backend:
            return tuple(backend.devices())

    def _placing(self, params: ModelParams) -> Sequence[Device]:
        """The devices that the layers of a model may be on; none if all are in RAM."""
        may = self.gpu is not False and Capability.GPU in self.capabilities
        return self.devices() if may and params.gpu_layers != 0 else ()

    def memory_state(self) -> MemoryState:
        """The memory of all devices."""
        return MemoryState.of(self.devices())

    def get_vram_state(self) -> MemoryState:
        """The memory of the GPUs only; all zero if there is none."""
        return MemoryState.of(gpus_of(self.devices()))

    def resources(self) -> list[ResourceInfo]:
        """What lives on this instance, itself included, oldest first."""
        return resources(self._node)


def _close(native: Any) -> None:
    native.close()
