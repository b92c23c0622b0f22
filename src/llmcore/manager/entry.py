"""
`Entry`: one model of a manager, and where it is in its life.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal

from llmcore.lifecycle import State
from llmcore.llama import Llama
from llmcore.manager.options import LoadOptions
from llmcore.memory import Budget
from llmcore.model import Model

if TYPE_CHECKING:
    from llmcore.manager.direct import Direct
    from llmcore.manager.server import Server

Status = Literal["loading", "ready", "unloading", "failed"]


class Entry:
    """
    Lives from the beginning of a load until the model is unloaded, and is not used
    again then: a model that is loaded anew gets a new one.

    Attributes:
        id: What requests call it.

        settled: Set when it is not loading any more.

        gone: Set when its memory is free.

        given_up: What it was loaded without for lack of memory, as sentences.

        cancelled: Whether its load is to stop.
    """

    def __init__(
        self, id: Hashable, source: Any, options: LoadOptions, budget: Budget
    ) -> None:
        self.id = id
        self.share = budget.share(f"model {id!r}")
        self.source = source
        self.options = options
        self._status: Status = "loading"
        self.progress = 0.0
        self.error = ""
        self.settled = threading.Event()
        self.gone = threading.Event()
        self.given_up: tuple[str, ...] = ()
        self.cancelled = False
        self.loader = 0  # id of the thread that loads it
        self.llama: Llama | None = None
        self.model: Model | None = None
        self.backing: Server | Direct | None = None
        self.crashes: list[float] = []
        self.requests = set[object]()  # those that run; adding and discarding is atomic
        self.accepted_requests = 0

    @property
    def label(self) -> str:
        """For people, and in the ledger."""
        return self.share.name

    @property
    def status(self) -> Status:
        """Where it is; one that is being evicted is ``"unloading"``."""
        model = self.model
        if self._status == "ready" and (model is None or model.disposed):
            return "unloading"
        return self._status

    @status.setter
    def status(self, status: Status) -> None:
        self._status = status

    def dispose_engine(self, timeout: float | None = None) -> None:
        """Dispose the engine and all on it, and let go of that."""
        try:
            if self.llama is not None:
                self.llama.dispose(timeout=timeout)
        finally:
            self.forget_engine()

    def forget_engine(self) -> None:
        """Let go of what is disposed: not before, or the collector would do it."""
        self.llama, self.model, self.backing = None, None, None

    @property
    def in_use(self) -> bool:
        """Whether a request or a lease of a caller holds it."""
        model = self.model
        return bool(self.requests) or (model is not None and model._node.holds > 0)

    @property
    def idle_since(self) -> float:
        """The end of the last hold, by the monotonic clock."""
        return 0.0 if self.model is None else self.model._node.idle_since

    @property
    def broken(self) -> bool:
        """Whether its engine died."""
        model = self.model
        return model is not None and model._node.state is State.BROKEN

    def info(self) -> dict[str, Any]:
        """What the manager tells of it: plain values, no handles."""
        options, model = self.options, self.model
        found: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "source": str(self.source),
            "mode": options.mode,
            "capabilities": sorted(options.capabilities),
            "pinned": options.pin,
            "keep_alive": options.keep_alive,
            "progress": self.progress,
            "active_requests": len(self.requests),
            "accepted_requests": self.accepted_requests,
            "crashes": len(self.crashes),
            "error": self.error or None,
            "reserved": dict(self.share.reserved),
            "given_up": list(self.given_up),
        }
        backing = self.backing
        if model is not None and backing is not None:
            found["backend"] = model.backend.name
            found["idle"] = 0.0 if self.in_use else time.monotonic() - self.idle_since
            found |= backing.info()
        return found
