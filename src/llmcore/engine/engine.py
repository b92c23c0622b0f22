"""
`Engine`: all that works on one native context, put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llmcore.engine.cache import Cache
from llmcore.engine.job import Job
from llmcore.engine.loop import BatchLoop
from llmcore.engine.pieces import Pieces
from llmcore.engine.samplers import NativeSamplers
from llmcore.engine.slot import Slot
from llmcore.engine.slots import SlotPool
from llmcore.engine.work import Evaluation
from llmcore.lifecycle import Node
from llmcore.spi import BackendContext
from llmcore.values import ContextParams, ModelInfo

T = TypeVar("T")


class Engine:
    """
    Lives as long as its context.

    Args:
        params: What the context was really given.

        info: Of the loaded model.

        pieces: Of its vocabulary.

        can_shift: Whether the context can shift, if its model can.
    """

    slots: SlotPool
    loop: BatchLoop

    def __init__(
        self,
        params: ContextParams,
        info: ModelInfo,
        pieces: Pieces,
        *,
        can_shift: bool,
    ) -> None:
        self.params = params
        self.info = info
        self.pieces = pieces
        self.cache = Cache(params, info)
        self.cache.can_shift &= can_shift
        self.samplers = NativeSamplers(info)
        self._node: Node | None = None

    def bind(self, node: Node, native: BackendContext) -> None:
        """Tell it which context it serves; once, right after its creation."""
        self.slots = SlotPool(self.params.sequences, self.cache, node)
        self.loop = BatchLoop(
            self.params, self.info, self.cache, self.slots, node, native
        )
        self._node = node

    def close(self, native: Any) -> None:
        """The teardown of the context: first what hangs on it, then itself."""
        try:
            if self._node is not None:
                self.loop.close()
            self.samplers.close()
        finally:
            native.close()

    def give_back(self, slot: Slot) -> None:
        """The teardown of a sequence."""
        self.slots.give_back(slot)

    def job(
        self,
        node: Node,
        slot: Slot,
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Job:
        """Claim a sequence for one user; errors as for `Job`."""
        return Job(node, slot, self.loop.job_changed, wait=wait, timeout=timeout)

    # -- by hand: for the thread of the caller -----------------------------------------

    def evaluate(
        self,
        job: Job,
        tokens: Sequence[int],
        read: Callable[[BackendContext, int], T],
        what: str = "the input",
    ) -> T:
        """
        Append tokens to a job's sequence and wait for it; all or nothing.

        Args:
            job: Whose turn it is.

            tokens: One or more.

            read: Called with the native context and the row of the last token.

            what: The tokens, for an error message.

        Returns:
            What ``read`` returned.
        """
        work = Evaluation(job, tokens, read, what)
        self.loop.submit(work)
        value: T = work.wait()
        return value

    def truncate(self, job: Job, length: int) -> int:
        """Keep the first tokens of a job's sequence; says how many it could."""
        with job.use(), self._context.use(job) as native:
            self.cache.settle(native, job.slot)
            return self.cache.cut(native, job.slot, length)

    def copy(self, job: Job, target: Slot) -> bool:
        """Copy a job's sequence into an empty slot; False if the backend cannot."""
        with job.use(), self._context.use(job) as native:
            self.cache.settle(native, job.slot)
            return self.cache.copy(native, job.slot, target)

    def save(self, job: Job) -> tuple[list[int], bytes]:
        """The tokens of a job's sequence, and its state in the engine's bytes."""
        with job.use(), self._context.use(job) as native:
            self.cache.settle(native, job.slot)
            return list(job.slot.tokens), native.save_state(job.slot.number)

    def load(self, job: Job, tokens: Sequence[int], state: bytes) -> None:
        """Replace a job's sequence by a saved one; empty if that fails."""
        with job.use(), self._context.use(job) as native:
            self.cache.settle(native, job.slot)
            self.cache.load(native, job.slot, tokens, state)

    @property
    def _context(self) -> Node:
        assert self._node is not None
        return self._node
