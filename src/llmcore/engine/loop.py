"""
`StepLoop`: the only place in core that evaluates, samples and edits a native context.

This edition runs each step in the thread of the caller and one sequence at a time. A
loop that batches the sequences of many threads can take its place without a change
anywhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from llmcore.engine.job import Job, claim_all
from llmcore.engine.slot import CacheReport, Slot, reusable
from llmcore.errors import (
    BrokenError,
    ContextOverflowError,
    DecodeAbortedError,
    DecodeError,
    DisposedError,
    ForkError,
)
from llmcore.lifecycle import Node
from llmcore.spi import BackendContext, BackendSampler, Batch
from llmcore.values import Capability, ContextParams, SamplingParams

T = TypeVar("T")


class StepLoop:
    """
    Lives as long as its context.

    Args:
        params: What the context was really given.

        capabilities: Of the loaded model.
    """

    def __init__(
        self, params: ContextParams, capabilities: frozenset[Capability]
    ) -> None:
        assert isinstance(params.context_size, int)
        self.size = params.context_size
        self.capabilities = capabilities
        self._batch_size = params.batch_size
        self._can_abort = Capability.ABORT in capabilities
        self._can_remove = Capability.PARTIAL_REMOVE in capabilities
        self._free = deque(range(params.sequences))
        self._taken: dict[int, Slot] = {}
        self._unclean: set[int] = set()
        self._samplers: set[BackendSampler] = set()
        self._retired: deque[BackendSampler] = deque()
        self._current: Job | None = None
        self._node: Node
        self._native: BackendContext

    def bind(self, node: Node, native: BackendContext) -> None:
        """Tell the loop which context it serves; once, right after its creation."""
        self._node = node
        self._native = native

    # -- slots -------------------------------------------------------------------------

    @property
    def slots_left(self) -> int:
        """How many sequences can still be taken."""
        return len(self._free)

    def take_slot(self) -> Slot | None:
        """A clean slot, or None if all are taken."""
        try:
            number = self._free.popleft()
        except IndexError:
            return None
        if number in self._unclean:
            try:
                with self._node.use() as native:
                    native.clear(number)
                self._unclean.discard(number)
            except BaseException:
                self._free.append(number)
                raise
        slot = self._taken[number] = Slot(number)
        return slot

    def give_back(self, slot: Slot) -> None:
        """Empty a slot and make it free; nobody uses it any more."""
        try:
            if slot.tokens or slot.pending:
                self._unclean.add(slot.number)
                with self._node.use() as native:
                    native.clear(slot.number)
                self._unclean.discard(slot.number)
        except (DisposedError, BrokenError, ForkError):
            pass  # the whole context goes, and the slot with it
        finally:
            slot.tokens, slot.pending = [], ()
            self._taken.pop(slot.number, None)
            self._free.append(slot.number)

    @property
    def token_count(self) -> int:
        """Tokens in the cache, of all sequences."""
        return sum(len(slot.tokens) for slot in list(self._taken.values()))

    def clear_all(self, *, data: bool) -> None:
        """Empty every sequence; none of them may have a user."""
        slots = list(self._taken.values())
        with claim_all(slots), self._node.use() as native:
            for slot in slots:
                slot.pending, slot.logits = list(slot.tokens), None
            native.clear(data=data)
            for slot in slots:
                slot.tokens, slot.pending = [], ()

    # -- evaluating --------------------------------------------------------------------

    def job(self, node: Node, slot: Slot) -> Job:
        """Claim a slot for one user."""
        return Job(node, slot, self._interrupt)

    def check_room(self, slot: Slot, more: int, what: str = "the prompt") -> None:
        """
        Raises:
            ContextOverflowError: So many more tokens do not fit; nothing was changed.
        """
        if len(slot.tokens) + more > self.size:
            raise ContextOverflowError(len(slot.tokens) + more, self.size, what)

    def evaluate(
        self,
        job: Job,
        tokens: Sequence[int],
        read: Callable[[BackendContext, int], T],
    ) -> T:
        """
        Append tokens to a job's sequence, in pieces that fit the batch.

        Args:
            job: Whose turn it is.

            tokens: One or more; there is room for them.

            read: Called with the native context and the row of the last token, inside
                the same lease as the evaluation.

        Returns:
            What ``read`` returned.
        """
        slot, start = job.slot, None
        while True:
            try:
                with job.use(), self._node.use(job) as native:
                    self._settle(native, slot)
                    start = len(slot.tokens) if start is None else start
                    chunk, last = self._next_chunk(slot, tokens, start)
                    self._decode(native, job, chunk, last)
                    if last:
                        return read(native, len(chunk) - 1)
            except DecodeAbortedError:
                # Either it was meant for this job, or the one it was meant for is gone
                # and this job goes on from where the engine stopped.
                self._check(job)

    def _next_chunk(
        self, slot: Slot, tokens: Sequence[int], start: int
    ) -> tuple[Sequence[int], bool]:
        done = len(slot.tokens) - start
        if done < 0:
            raise DecodeError(
                "the engine lost the sequence while it evaluated: it is empty now, "
                "evaluate everything again"
            )
        chunk = tokens[done : done + self._batch_size]
        return chunk, done + len(chunk) == len(tokens)

    def _check(self, job: Job) -> None:
        """Raise if the job was cancelled, or the context is going away under it."""
        job.check()
        if not self._node.draining:
            self._node.check()

    def _decode(
        self, native: BackendContext, job: Job, chunk: Sequence[int], last: bool
    ) -> None:
        slot = job.slot
        position, count = len(slot.tokens), len(chunk)
        outputs = [False] * count
        outputs[-1] = last
        batch = Batch(
            chunk, range(position, position + count), [slot.number] * count, outputs
        )
        self._current = job
        try:
            if self._can_abort:
                native.abort(False)
            # After that line: whoever cancels or disposes from here on aborts the call.
            self._check(job)
            slot.pending, slot.logits = chunk, None
            native.decode(batch)
            slot.tokens.extend(chunk)
            slot.pending = ()
        finally:
            self._current = None

    def _settle(self, native: BackendContext, slot: Slot) -> None:
        """Bring mirror and cache together after a call that did not come back well."""
        while self._retired:
            self._close_sampler(self._retired.popleft())
        if not slot.pending:
            return
        known = [*slot.tokens, *slot.pending]
        first, last = native.bounds(slot.number)
        if last >= len(known) or (first != 0 and self._can_remove):
            native.clear(slot.number)
            last = -1
        slot.tokens, slot.pending = known[: last + 1], ()

    def _interrupt(self, job: Job) -> None:
        """Stop the engine if it works for this job; a stray abort is made good."""
        if self._can_abort and self._current is job:
            self._node.poke(partial(self._native.abort, True))

    # -- keeping what can be kept ------------------------------------------------------

    def reuse(self, job: Job, prompt: Sequence[int]) -> CacheReport:
        """Cut a job's sequence down to what a prompt can keep of it."""
        slot = job.slot
        with job.use(), self._node.use(job) as native:
            self._settle(native, slot)
            keep, reason = reusable(slot.tokens, prompt)
            kept = self._cut(native, slot, keep)
        if kept < keep:
            reason = "the cache cannot drop a part of itself"
        return CacheReport(reused=kept, evaluated=len(prompt) - kept, reason=reason)

    def truncate(self, job: Job, length: int) -> int:
        """Keep the first ``length`` tokens if the cache can, else none; says which."""
        with job.use(), self._node.use(job) as native:
            self._settle(native, job.slot)
            return self._cut(native, job.slot, length)

    def _cut(self, native: BackendContext, slot: Slot, length: int) -> int:
        if length >= len(slot.tokens):
            return len(slot.tokens)
        slot.logits = None
        number = slot.number
        if (
            length > 0
            and self._can_remove
            and native.remove(number, length)
            # A cache may say yes and have lost more than that: its positions decide.
            and native.bounds(number) == (0, length - 1)
        ):
            del slot.tokens[length:]
            return length
        slot.pending = list(slot.tokens)  # until the line after next, nothing is sure
        native.clear(number)
        slot.tokens, slot.pending = [], ()
        return 0

    def copy(self, job: Job, target: Slot) -> bool:
        """Copy a job's sequence into an empty slot; False if the backend cannot."""
        if Capability.COPY not in self.capabilities:
            return False
        with job.use(), self._node.use(job) as native:
            self._settle(native, job.slot)
            target.pending = list(job.slot.tokens)
            native.copy(job.slot.number, target.number)
            target.tokens, target.pending = list(job.slot.tokens), ()
            target.logits = job.slot.logits
        return True

    # -- native samplers ---------------------------------------------------------------

    def native_sampler(
        self, job: Job, params: SamplingParams, seed: int, seen: Sequence[int]
    ) -> BackendSampler | None:
        """
        A sampler of the engine with this meaning, or None if core must sample.

        Args:
            seen: The tokens that the penalties already know.
        """
        if Capability.NATIVE_SAMPLING not in self.capabilities:
            return None
        with job.use(), self._node.use(job) as native:
            sampler: BackendSampler | None = native.create_sampler(params, seed)
            if sampler is not None:
                self._samplers.add(sampler)
                for token in seen:
                    sampler.accept(token)
        return sampler

    def retire(self, sampler: BackendSampler) -> None:
        """The sampler is not needed any more; may be called by the collector."""
        self._retired.append(sampler)

    def _close_sampler(self, sampler: BackendSampler) -> None:
        if sampler in self._samplers:
            self._samplers.discard(sampler)
            sampler.close()

    def close(self, native: Any) -> None:
        """The teardown of the context: first what hangs on it, then itself."""
        try:
            for sampler in list(self._samplers):
                self._close_sampler(sampler)
        finally:
            native.close()
