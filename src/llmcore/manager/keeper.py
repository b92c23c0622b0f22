"""
`Keeper`: loads, unloads, evicts and restarts the models of a manager.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Literal

from llmcore.engine.signals import MOMENT
from llmcore.errors import BusyError, DisposeTimeoutError, OperationCancelledError
from llmcore.lifecycle import Scope
from llmcore.manager.admission import Admission, Policy
from llmcore.manager.entry import Entry
from llmcore.manager.loading import Loader, Progress
from llmcore.manager.table import Table
from llmcore.memory import Budget
from llmcore.spi import Backend
from llmcore.telemetry import span

Inflight = Literal["drain", "cancel"]

PATIENCE = 10.0
"""Seconds that a disposal waits for loads that were cancelled to clean up."""

RESTART_WINDOW = 60.0
"""Seconds within which crashes of a model are counted."""

logger = logging.getLogger("llmcore.manager")
# Without a handler of our own, `logging` prints warnings to stderr as a last resort.
logger.addHandler(logging.NullHandler())


class Keeper:
    """
    Lives as long as its manager. Any thread; nothing here is done under a lock but the
    few lines that write the table.

    Args:
        budget: What all models may use together.

        policy: What happens when a model does not fit.

        scope: Owns the engines.
    """

    def __init__(self, budget: Budget, policy: Policy, scope: Scope) -> None:
        self.table = Table()
        self.admission = Admission(budget, policy, self.table.all, self.evict)
        self.budget = budget
        self._scope = scope
        self._timer: threading.Thread | None = None

    # -- loading -----------------------------------------------------------------------

    def load(
        self, entry: Entry, *, timeout: float, progress: Progress | None, wait: bool
    ) -> None:
        """Load a model, in this thread or in one of its own."""
        with self.table.lock:
            self.table.add(entry)
        deadline = time.monotonic() + timeout
        if wait:
            try:
                self._run(entry, deadline, progress)
            except BaseException:  # the caller is told: no need to remember
                with self.table.lock:
                    self.table.remove(entry)
                raise
        else:
            self._start(entry, deadline, progress)

    def _start(
        self, entry: Entry, deadline: float, progress: Progress | None = None
    ) -> None:
        def run() -> None:
            try:
                self._run(entry, deadline, progress)
            except Exception as error:  # kept with the entry
                logger.warning("loading %s failed: %s", entry.label, str(error))

        threading.Thread(target=run, name="llmcore-load", daemon=True).start()

    def _run(self, entry: Entry, deadline: float, progress: Progress | None) -> None:
        entry.loader = threading.get_ident()
        loader = Loader(entry, self.admission, self._scope.own, deadline, progress)
        try:
            loader.run()
            self._commit(entry)
        except BaseException as error:
            entry.dispose_engine()
            # The words alone: an error would keep the frames of its traceback alive.
            entry.error = f"{error}"
            entry.status = "failed"
            raise
        finally:
            entry.settled.set()
            self.admission.changed()
        if entry.options.keep_alive is not None:
            self._start_timer()

    def _commit(self, entry: Entry) -> None:
        with self.table.lock:
            if entry.cancelled:
                raise OperationCancelledError(
                    f"the load of {entry.label} was cancelled"
                )
            entry.status = "ready"
            if entry.options.default:
                self.table.default = entry.id

    def cancel_load(self, entry: Entry) -> None:
        """Have a load end soon; one that is over stays as it is."""
        with self.table.lock:
            if entry.status == "loading":
                entry.cancelled = True
        self.admission.changed()

    # -- unloading ---------------------------------------------------------------------

    def unload(self, entry: Entry, inflight: Inflight, timeout: float) -> None:
        """
        Unload a model; returns when its memory is free.

        Raises:
            DisposeTimeoutError: Not in time; it is freed in the background.
        """
        deadline = time.monotonic() + timeout
        with self.table.lock:
            was = entry.status
            if was in ("ready", "failed"):
                entry.status = "unloading"
            elif was == "loading":
                entry.cancelled = True  # here, or it could be committed meanwhile
        if was == "loading":
            self.admission.changed()
            self._await(entry.settled, entry, deadline)
            self._forget(entry)
        elif was == "unloading":  # somebody else does it
            self._await(entry.gone, entry, deadline)
        else:
            if inflight == "drain":
                self._drain(entry, deadline)
            self._free(entry, deadline)

    def _await(self, event: threading.Event, entry: Entry, deadline: float) -> None:
        if not event.wait(max(0.0, deadline - time.monotonic())):
            raise DisposeTimeoutError(
                f"{entry.label} is still {entry.status}: it ends when its engine "
                "comes back; unload it again to wait longer"
            )

    def _drain(self, entry: Entry, deadline: float) -> None:
        """Let accepted requests end; those that take too long are cancelled then."""
        while entry.in_use:
            left = deadline - time.monotonic()
            if left <= 0:
                logger.warning("%s: requests are cancelled by unload()", entry.label)
                return
            self.admission.wait(min(MOMENT, left))

    def _free(self, entry: Entry, deadline: float) -> None:
        try:
            # Time for the running step to end, also where all of it is used up.
            entry.dispose_engine(max(deadline - time.monotonic(), 1.0))
        finally:
            self._forget(entry)

    def evict(self, entry: Entry, idle: float = 0.0) -> bool:
        """Unload a model unless it is in use; returns when its memory is free."""
        llama = entry.llama
        if entry.status != "ready" or llama is None or entry.in_use:
            return False
        if time.monotonic() - entry.idle_since < idle:
            return False
        size = sum(entry.share.reserved.values())
        told = span("evict", llama._node, model=str(entry.id), bytes=size)
        if not llama.dispose_if_unused(idle=idle):
            told.fail(BusyError(f"{entry.label} was asked for in the same moment"))
            return False
        self._forget(entry)
        told.complete()
        logger.info("%s was evicted", entry.label)
        return True

    def _forget(self, entry: Entry) -> None:
        """The memory of a model is free."""
        entry.forget_engine()
        with self.table.lock:
            self.table.remove(entry)
        entry.gone.set()
        self.admission.changed()

    def _start_timer(self) -> None:
        with self.table.lock:
            if self._timer is None:
                self._timer = threading.Thread(
                    target=self._evict_idle, name="llmcore-keep-alive", daemon=True
                )
                self._timer.start()

    def _evict_idle(self) -> None:
        """Evict what was idle for longer than it is to be kept; ends with the last."""
        while True:
            with self.table.lock:
                timed = [
                    entry
                    for entry in self.table.all()
                    if entry.options.keep_alive is not None
                ]
                if not timed or self._scope.disposed:
                    self._timer = None
                    return
            for entry in timed:
                assert entry.options.keep_alive is not None
                self.evict(entry, entry.options.keep_alive)
            self.admission.wait(MOMENT)

    # -- crashes -----------------------------------------------------------------------

    def look_after(self, entry: Entry) -> None:
        """Load a model again if its engine died, unless that happens too often."""
        with self.table.lock:
            if entry.status != "ready" or not entry.broken:
                return
            now = time.monotonic()
            recent = [at for at in entry.crashes if now - at < RESTART_WINDOW]
            entry.crashes = [*recent, now]
            entry.settled.clear()
            entry.error = _why_not_again(entry)
            entry.status = "failed" if entry.error else "loading"
        threading.Thread(target=self._restart, args=(entry,), daemon=True).start()

    def _restart(self, entry: Entry) -> None:
        entry.dispose_engine()
        if entry.status == "loading":
            logger.warning("%s: its engine crashed; loading it again", entry.label)
            self._start(entry, time.monotonic() + RESTART_WINDOW)
        else:
            entry.settled.set()

    def request_over(self, entry: Entry) -> None:
        """A lease ended. Also called in the collector: neither waits nor raises."""
        self.admission.changed()
        if entry.broken:
            threading.Thread(
                target=self.look_after,
                args=(entry,),
                name="llmcore-restart",
                daemon=True,
            ).start()

    def close(self) -> None:
        """The manager is disposed: loads give up, and are waited for a while."""
        entries = self.table.all()
        for entry in entries:
            self.cancel_load(entry)
        deadline = time.monotonic() + PATIENCE
        for entry in entries:
            if entry.loader != threading.get_ident():
                entry.settled.wait(max(0.0, deadline - time.monotonic()))


def _why_not_again(entry: Entry) -> str:
    """Why a model whose engine died is not loaded again; empty if it is."""
    if isinstance(entry.options.engine.get("backend"), Backend):
        return "its engine crashed, and a backend object cannot be started again"
    if len(entry.crashes) > entry.options.restarts:
        return f"its engine crashed {len(entry.crashes)} times within a minute"
    return ""
