"""
`ModelManager`: keeps models resident, finds them by id, and stays within a budget.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from llmcore.errors import AlreadyStartedError, ParameterError
from llmcore.lifecycle import Scope
from llmcore.manager.admission import POLICIES, Policy
from llmcore.manager.direct import Direct
from llmcore.manager.entry import Entry
from llmcore.manager.keeper import Inflight, Keeper
from llmcore.manager.options import LoadOptions, Mode
from llmcore.manager.serving import Serving
from llmcore.manager.table import DEFAULT
from llmcore.memory import Budget, Limit
from llmcore.model import Model
from llmcore.twins import twin, unless_cancelled

Progress = Callable[[float], object]
"""Called with the share loaded, 0.0 to 1.0; returning False cancels the load."""

Preload = tuple[Hashable, Any] | tuple[Hashable, Any, Mapping[str, Any]]
"""An id, a source, and perhaps options, as for `ModelManager.load`."""

LOAD_TIMEOUT = 600.0
UNLOAD_TIMEOUT = 30.0

_running = weakref.WeakValueDictionary[str, "ModelManager"]()
_starting = threading.Lock()


class Route(NamedTuple):
    """
    Where requests for a model go.

    Attributes:
        mode: ``"server"`` or ``"direct"``.

        target: The `Context` that requests share, or the `Model`.

        info: As `ModelManager.info` tells.
    """

    mode: Mode
    target: Any
    info: Mapping[str, Any]


class ModelManager(Serving):
    """
    Lives until it is disposed, and its models with it. Any thread may use it.

    Each model has an engine of its own, so that one which crashes or is unloaded does
    nothing to the others. Look-ups take no lock, so that nobody waits for a load.

    Args:
        budget: What all models may use together: a limit in bytes, one for each device,
            ``"auto"`` for what is free now, None for no limit, or a `Budget`.

        policy: When a model does not fit: ``"refuse"`` raises
            `InsufficientMemoryError`; ``"evict"`` unloads models that no request uses,
            the longest unused first, and never one that a request or a lease holds;
            ``"fit"`` does that, and then loads with less: see `llmcore.memory.ladder`.

        headroom: Share that is reserved on top of each estimate.

        models: To load at once, in the background.

        name: One manager of a name lives in a process at a time; None is for one that
            nobody needs to find.

    Raises:
        AlreadyStartedError: A manager of that name lives already.
    """

    def __init__(
        self,
        *,
        budget: Budget | Limit = "auto",
        policy: Policy = "evict",
        headroom: float = 0.2,
        models: Iterable[Preload] = (),
        name: str | None = "default",
    ) -> None:
        if policy not in POLICIES:
            raise ParameterError(f"policy must be one of {POLICIES}, got {policy!r}")
        if not isinstance(budget, Budget):
            budget = Budget(budget, headroom=headroom)
        with _starting:
            if name is not None:
                _refuse_second(name)
            scope = Scope()
            keeper = Keeper(budget, policy, scope)
            super().__init__(
                "manager", handle=keeper, teardown=Keeper.close, name=name or ""
            )
            scope.move_to(self)
            if name is not None:
                _running[name] = self
        self.budget = budget
        self._keeper = keeper
        self._table = keeper.table
        try:
            for id, source, *more in models:
                self.load(id, source, wait=False, **(more[0] if more else {}))
        except BaseException:
            self.dispose()
            raise

    @staticmethod
    def running(name: str = "default") -> ModelManager | None:
        """The manager of that name, if one lives."""
        manager = _running.get(name)
        return None if manager is None or manager.disposed else manager

    # -- loading -----------------------------------------------------------------------

    def load(
        self,
        id: Hashable,
        source: Any = None,
        *,
        replace: bool = False,
        wait: bool = True,
        timeout: float = LOAD_TIMEOUT,
        progress: Progress | None = None,
        **options: Any,
    ) -> Hashable:
        """
        Load a model and keep it resident.

        Args:
            id: What requests call it: anything hashable but None.

            source: A path, or whatever `llmcore.sources` knows; None only for a backend
                that needs no file.

            replace: Unload a model of that id first.

            wait: Return when it is ready; False returns at once, and `info` tells how
                it goes on.

            timeout: Seconds to wait for room in the budget, at most.

            progress: Called with 0.0 to 1.0, in the thread that loads.

            options: Those of `LoadOptions`, `ModelParams` and `ContextParams`, those of
                `get_llama`, and those of the source, one by one.

        Returns:
            The id.

        Raises:
            AlreadyLoadedError: A model of that id is there.

            InsufficientMemoryError: It does not fit; nothing was evicted for it in
                vain, and its ``account`` says who has the memory.

            ModelLoadError: Names the file and the reason; nothing is left behind.

            OperationCancelledError: ``progress`` returned False, or it was unloaded
                meanwhile.
        """
        self._check()
        hash(id)
        if id is DEFAULT or id is None:
            raise ValueError(f"{id!r} is no id: give one, and perhaps default=True")
        parsed = LoadOptions.parse(options)
        if replace and id in self:
            self.unload(id)
        entry = Entry(id, source, parsed, self.budget)
        self._keeper.load(entry, timeout=timeout, progress=progress, wait=wait)
        return id

    async def aload(self, id: Hashable, source: Any = None, **options: Any) -> Hashable:
        """`load` without blocking the event loop; cancelling the task cancels it."""
        return await unless_cancelled(
            partial(self.load, id, source, **options),
            lambda: self._cancel_load(id),
            undo=partial(self.unload, inflight="cancel"),
        )

    def _cancel_load(self, id: Hashable) -> None:
        entry = self._table.find(id)
        if entry is not None:
            self._keeper.cancel_load(entry)

    def unload(
        self,
        id: Hashable,
        *,
        inflight: Inflight = "drain",
        timeout: float = UNLOAD_TIMEOUT,
    ) -> None:
        """
        Unload a model; returns when its memory is free. It takes no new requests from
        the first moment.

        Args:
            id: Of a model, whatever its status; one that is loading is cancelled.

            inflight: ``"drain"`` lets accepted requests, and leases of callers, end;
                those that last longer than ``timeout`` are cancelled. ``"cancel"``
                cancels them at once: each gets one `DisposedError`.

            timeout: Seconds.

        Raises:
            NotLoadedError: There is none.

            DisposeTimeoutError: The engine was still inside of a step; the memory is
                freed when that ends.
        """
        self._check()
        if inflight not in ("drain", "cancel"):
            raise ParameterError(
                f"inflight must be 'drain' or 'cancel', got {inflight!r}"
            )
        self._keeper.unload(self._table.get(id), inflight, timeout)

    aunload = twin(unload)

    # -- looking up --------------------------------------------------------------------

    def info(self, id: Hashable) -> dict[str, Any]:
        """
        What there is to know of a model: plain values.

        Raises:
            NotLoadedError: There is none.
        """
        self._check()
        return self._told(self._table.get(id))

    def list(self) -> list[dict[str, Any]]:
        """`info` of every model, the oldest first."""
        self._check()
        return [self._told(entry) for entry in self._table.all()]

    def _told(self, entry: Entry) -> dict[str, Any]:
        return entry.info() | {"default": entry.id == self._table.default}

    def loaded(self, id: Hashable) -> bool:
        """Whether a model is loaded and ready."""
        self._check()
        entry = self._table.find(id)
        return entry is not None and entry.status == "ready"

    def __contains__(self, id: Hashable) -> bool:
        """Whether there is a model of that id, whatever its status."""
        return self._table.find(id) is not None

    def route(self, id: Hashable) -> Route:
        """
        Where requests for a model go.

        Raises:
            NotLoadedError: There is none, or it is not ready.
        """
        self._check()
        entry = self._table.ready(id)
        backing = entry.backing
        if backing is None:  # evicted since
            return self.route(id)
        target = backing.model if isinstance(backing, Direct) else backing.context
        return Route(entry.options.mode, target, self._told(entry))

    def fetch_model(self, id: Hashable) -> Model:
        """
        The model itself, which the manager still owns: hold `Model.lease` as long as
        you need it, or it may be unloaded.

        Raises:
            NotLoadedError: There is none, or it is not ready.
        """
        self._check()
        model = self._table.ready(id).model
        return self.fetch_model(id) if model is None else model

    def set_default(self, id: Hashable) -> None:
        """
        Let a model answer the requests for `DEFAULT`.

        Raises:
            NotLoadedError: There is none.
        """
        self._check()
        with self._table.lock:
            self._table.default = self._table.get(id).id

    def default(self) -> Hashable | None:
        """The id of the default model; None if there is none."""
        self._check()
        return self._table.default


def _refuse_second(name: str) -> None:
    other = _running.get(name)
    if other is not None and not other.disposed:
        raise AlreadyStartedError(
            f"{other._node.label} lives already in this process: use "
            f"ModelManager.running({name!r}), dispose it, or give this one another name"
        )
