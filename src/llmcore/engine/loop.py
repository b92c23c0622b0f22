"""
`BatchLoop`: the decode thread of a context, the only one that evaluates there.

Others talk to it through signs that need no lock, and edit caches themselves, between
two steps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial

from llmcore.engine.cache import Cache
from llmcore.engine.callers import CallersError, call
from llmcore.engine.job import Job
from llmcore.engine.signals import Signal
from llmcore.engine.slots import SlotPool
from llmcore.engine.step import Stepper
from llmcore.engine.work import Work
from llmcore.errors import DisposedError, QueueFullError
from llmcore.lifecycle import Node
from llmcore.spi import BackendContext
from llmcore.values import Capability, ContextParams, ModelInfo


class BatchLoop:
    """
    Lives as long as its context; its thread starts with the first work.

    Args:
        params: What the context was really given.

        info: Of the loaded model.

        cache: The caches of the context.

        slots: Its sequences.

        node: Of the context.

        native: The context.
    """

    def __init__(
        self,
        params: ContextParams,
        info: ModelInfo,
        cache: Cache,
        slots: SlotPool,
        node: Node,
        native: BackendContext,
    ) -> None:
        self._max_waiting = params.max_waiting
        self._can_abort = Capability.ABORT in info.capabilities
        self._node = node
        self._native = native
        self._stepper = Stepper(
            params, info, cache, slots, node, self._fail, self._tell_readers
        )
        self._inbox = deque[Work]()
        self._works: list[Work] = []  # in the order of arrival
        self._signal = Signal()
        self._runner: dict[int, int] = {}
        self._gone = threading.Event()
        self._closing = False
        self._closed = False

    # -- for all threads ---------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """
        Have some work done.

        Raises:
            QueueFullError: It would stand in line, and the line is full.
        """
        if work.job.waiting:
            self._check_line()
        work.asked()
        self._inbox.append(work)
        if not self._runner:
            self._start()
        self._signal.set()
        if self._closed:  # nobody will look into the inbox any more
            self._fail_all()

    def _check_line(self) -> None:
        jobs = [work.job for work in (*self._works, *self._inbox)]
        line = sum(job.waiting and not job.ended for job in jobs)
        if line >= self._max_waiting:
            raise QueueFullError(
                f"{line} requests wait for sequences of {self._node.label} already: "
                "try again later, or create it with a larger max_waiting"
            )

    def wake(self) -> None:
        """Have the loop look again at what there is to do. Any moment."""
        self._signal.set()

    def job_changed(self, job: Job) -> None:
        """A job was cancelled or has ended: if the engine works for it alone, stop."""
        current = self._stepper.current
        if self._can_abort and len(current) == 1 and current[0] is job:
            self._node.poke(partial(self._native.abort, True))
        self._signal.set()

    @property
    def inside(self) -> bool:
        """Whether this is the thread of the loop, which must not wait for itself."""
        return self._runner.get(0) == threading.get_ident()

    def close(self) -> None:
        """End the thread; nobody uses the context any more."""
        self._closing = True
        self._signal.set()
        if self._runner:
            self._gone.wait()
        self._stepper.close()

    # -- the thread --------------------------------------------------------------------

    def _start(self) -> None:
        name = f"llmcore-{self._node.kind}-{self._node.number}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError as error:
            self._fail_all()
            raise DisposedError(
                f"{self._node.label} cannot start its thread: the interpreter exits"
            ) from error

    def _run(self) -> None:
        me = threading.get_ident()
        if self._runner.setdefault(0, me) != me:
            return  # whoever started us was cut short by Ctrl-C, and tried again
        try:
            while not self._closing:
                if not self._step():
                    self._tell_readers()
                    self._signal.wait(self._patience())
        finally:
            self._closed = True
            self._fail_all()
            self._gone.set()

    def _step(self) -> bool:
        """Serve those who are ready; False if nobody is."""
        ready = self._gather()
        if not ready:
            return False
        self._think([work for work in ready if work.thoughtful])
        try:
            with self._node.use(ready[0].job) as native:
                self._stepper.serve(native, [w for w in ready if not w.over])
        except BaseException as error:  # the context is going, or the engine died
            for work in list(self._works):
                self._fail(work, error)
        return True

    def _think(self, works: list[Work]) -> None:
        if works:
            self._tell_readers()  # it may take its time
        for work in works:
            try:
                call(work.think)
            except CallersError as error:
                self._fail(work, error)

    def _tell_readers(self) -> None:
        for work in self._works:
            work.tell()

    def _gather(self) -> list[Work]:
        """Those who can go on; the others wait, or are sent away."""
        while self._inbox:
            self._works.append(self._inbox.popleft())
        ready = []
        for work in list(self._works):
            job = work.job
            if work.over or job.ended:
                self._works.remove(work)
                work.drop()
                continue
            try:
                job.check()
            except BaseException as error:
                self._fail(work, error)
                continue
            if job.claim() and not work.parked:
                ready.append(work)
        return ready

    def _patience(self) -> float | None:
        """Seconds until the first one's time is over."""
        deadlines = [w.job.deadline for w in self._works if w.job.deadline is not None]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic())

    def _fail_all(self) -> None:
        gone = DisposedError(f"{self._node.label} is disposed: create a new one")
        while self._inbox:
            self._works.append(self._inbox.popleft())
        for work in list(self._works):
            self._fail(work, gone)

    def _fail(self, work: Work, error: BaseException) -> None:
        if work in self._works:
            self._works.remove(work)
        if not work.over:
            work.over = True
            work.fail(self._as_seen_by(work.job, error))

    def _as_seen_by(self, job: Job, error: BaseException) -> BaseException:
        """In the words of the seam; a disposal in those of the job's own sequence."""
        if isinstance(error, CallersError):
            return error.original
        try:
            if isinstance(error, DisposedError):
                job.node.check()
            if self._node.translate is not None:
                self._node.translate(error)
        except Exception as better:
            return better
        return error
