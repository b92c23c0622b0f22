"""
`Stepper`: one step of the engine for many sequences, and what to do if it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmcore.engine.cache import Cache
from llmcore.engine.job import Job
from llmcore.engine.scheduling import Waiting, checked_shares, policy_for
from llmcore.engine.slot import Slot
from llmcore.engine.slots import SlotPool
from llmcore.engine.work import Work
from llmcore.errors import (
    BackendCrashedError,
    BrokenError,
    DecodeAbortedError,
    DisposedError,
    ForkError,
)
from llmcore.lifecycle import Node, Use
from llmcore.spi import BackendContext, Batch
from llmcore.telemetry import bus
from llmcore.values import CacheKind, Capability, ContextParams, ModelInfo

Part = tuple[Work, Sequence[int]]
"""Some work, and its tokens that go into a batch."""

FATAL = (BackendCrashedError, BrokenError, DisposedError, ForkError)
"""Not the failure of one batch: nothing can go on."""


class Stepper:
    """
    Lives as long as its context. Only the engine's thread calls it.

    Args:
        params: What the context was really given.

        info: Of the loaded model.

        cache: The caches of the context.

        slots: Its sequences.

        node: Of the context.

        fail: Called with work and what it failed of.

        leave: Called right before the engine leaves Python for a while.
    """

    def __init__(
        self,
        params: ContextParams,
        info: ModelInfo,
        cache: Cache,
        slots: SlotPool,
        node: Node,
        fail: Callable[[Work, BaseException], object],
        leave: Callable[[], object],
    ) -> None:
        self.current: Sequence[Job] = ()
        """Whose tokens the engine evaluates right now; any thread may look."""
        self.count = 0
        self._policy = policy_for(params)
        self._batch_size = params.batch_size
        self._micro_batch = min(params.micro_batch_size, params.batch_size)
        if params.deterministic:  # a neighbour must not change how a prompt is cut
            self._micro_batch = params.batch_size
        self._can_abort = Capability.ABORT in info.capabilities
        self._remembers = info.cache_kind is not CacheKind.NONE
        self._cache = cache
        self._slots = slots
        self._node = node
        self._fail = fail
        self._leave = leave

    def close(self) -> None:
        """Let go of the loop, so that no collector is needed to free the two."""
        del self._fail, self._leave

    def serve(self, native: BackendContext, works: Sequence[Work]) -> None:
        """One step for those of them who can go on; inside the context's lease."""
        leases: list[Use] = []
        ready: list[Work] = []
        try:
            for work in works:
                try:
                    # Entered in this very function: see `Use.was_cut_off`.
                    lease = work.job.use()
                    lease.__enter__()
                    leases.append(lease)
                    if work.job.ended:  # the sequence may have another user
                        continue
                    self._cache.settle(native, work.job.slot)
                    work.prepare(native, self._cache)
                except BackendCrashedError:
                    raise
                except BaseException as error:  # this one's own; the others go on
                    self._fail(work, error)
                else:
                    if not work.over:
                        ready.append(work)
            if ready:
                self._step(native, self._plan(ready))
        finally:
            for lease in reversed(leases):
                lease.leave()

    # -- what goes into a step ---------------------------------------------------------

    def _plan(self, ready: list[Work]) -> list[Part]:
        self.count += 1
        if len(ready) == 1 and ready[0].running and ready[0].left == 1:
            ready[0].served = self.count
            return [(ready[0], ready[0].tokens[-1:])]  # nothing to decide
        waiting = [Waiting(w.left, w.running, w.priority, w.served) for w in ready]
        budget = self._batch_size
        running = sum(one.tokens for one in waiting if one.running)
        if running and not all(one.running for one in waiting):
            # Who reads along never waits for more than one micro-batch.
            budget = min(budget, max(self._micro_batch, running + 1))
        shares = checked_shares(self._policy, waiting, max(budget, len(ready)))
        plan = []
        for work, share in zip(ready, shares, strict=True):
            if share:
                work.served = self.count
                plan.append((work, _chunk(work, share)))
        return plan

    # -- evaluating it -----------------------------------------------------------------

    def _step(self, native: BackendContext, plan: list[Part]) -> None:
        batch, rows = _batch(plan)
        self.current = [work.job for work, _ in plan]
        try:
            if not self._may_begin(native):
                return
            for work, chunk in plan:
                slot = work.job.slot
                slot.pending, slot.logits = chunk, None
            self._leave()
            if "step" in bus.ears:
                self._decode_heard(native, batch, plan)
            else:
                native.decode(batch)
        except FATAL:
            raise
        except Exception as error:
            self.current = ()
            self._recover(native, plan, error)
            return
        finally:
            self.current = ()
        for work, chunk in plan:
            slot = work.job.slot
            slot.tokens.extend(chunk)
            slot.pending = ()
        self._hand_out(native, [part[0] for part in plan], rows)

    def _decode_heard(
        self, native: BackendContext, batch: Batch, plan: list[Part]
    ) -> None:
        running = sum(len(chunk) for work, chunk in plan if work.running)
        with bus.span(
            "step",
            self._node,
            active=len(plan),
            batch_size=len(batch.tokens),
            prefill_tokens=len(batch.tokens) - running,
            decode_tokens=running,
        ):
            native.decode(batch)

    def _may_begin(self, native: BackendContext) -> bool:
        if self._can_abort:
            native.abort(False)
        # After that line: whoever cancels or disposes from here on aborts the call.
        if not self._node.draining:
            self._node.check()
        return not any(job.cancelled or job.ended for job in self.current)

    def _hand_out(
        self, native: BackendContext, works: list[Work], rows: list[int]
    ) -> None:
        done = []
        for work, row in zip(works, rows, strict=True):
            try:
                if not work.left:
                    work.take(native, row)
                done.append(work)
            except BackendCrashedError:
                raise
            except BaseException as error:
                self._fail(work, error)
        # Only now: what touches a cache may end the life of the outputs.
        for work in done:
            try:
                work.settle(native, self._cache)
            except BackendCrashedError:
                raise
            except BaseException as error:
                self._fail(work, error)

    # -- when it fails -----------------------------------------------------------------

    def _recover(
        self, native: BackendContext, plan: list[Part], error: Exception
    ) -> None:
        """
        Ask the engine what is true, and let everyone try alone.

        An abort was meant for one who is gone, or is about to go: the others, and who
        was only nearly meant, go on in the next step from where the engine stopped.
        """
        left = []
        self._restore_others(native, [work for work, _ in plan])
        for work, _ in plan:
            try:
                self._rewind(native, work)
                left.append(work)
            except BackendCrashedError:
                raise
            except BaseException as failure:
                self._fail(work, failure)
        if isinstance(error, DecodeAbortedError):
            return
        if len(plan) == 1:
            for work in left:
                self._fail(work, error)
            return
        for work in left:
            self._step(native, [(work, _chunk(work, self._batch_size))])

    def _restore_others(self, native: BackendContext, failed: list[Work]) -> None:
        """An engine may lose sequences that had no part in what failed."""
        busy = [work.job.slot for work in failed]
        for slot in self._slots.taken:
            lost = list(slot.tokens)
            if slot in busy or slot.pending or not lost or not self._remembers:
                continue
            if native.bounds(slot.number)[1] == len(lost) - 1:
                continue
            self._cache.clear(native, slot)
            try:
                self._evaluate_again(native, slot, lost)
            except FATAL:
                raise
            except Exception:  # the next use of it finds what is left
                continue

    def _evaluate_again(
        self, native: BackendContext, slot: Slot, tokens: list[int]
    ) -> None:
        for start in range(0, len(tokens), self._batch_size):
            chunk = tokens[start : start + self._batch_size]
            count = len(chunk)
            positions = range(start, start + count)
            slot.pending = chunk
            native.decode(
                Batch(chunk, positions, [slot.number] * count, [False] * count)
            )
            slot.tokens.extend(chunk)
            slot.pending = ()

    def _rewind(self, native: BackendContext, work: Work) -> None:
        """Have the work go on from what the engine really holds."""
        slot = work.job.slot
        goal = [*slot.tokens, *slot.pending][: work.start] + list(work.tokens)
        self._cache.settle(native, slot)
        # At least the last token goes in again: its output, if there was one, is lost.
        self._cache.cut(native, slot, len(goal) - max(work.rows, 1))
        if len(slot.tokens) < work.start:  # more is lost than it had asked for
            work.start = len(slot.tokens)
            work.tokens = goal[work.start :]


def _chunk(work: Work, share: int) -> Sequence[int]:
    """The next tokens of some work; outputs are asked for all at once or not yet."""
    left = work.left
    if left - work.rows < share < left:
        if work.rows > 1 and left == work.rows:
            work.shorten(share)
        else:
            share = left - work.rows
    done = len(work.tokens) - work.left
    return work.tokens[done : done + share]


def _batch(plan: list[Part]) -> tuple[Batch, list[int]]:
    """One batch of all parts, and the first output row of each."""
    tokens: list[int] = []
    positions: list[int] = []
    sequences: list[int] = []
    outputs: list[bool] = []
    rows = []
    for work, chunk in plan:
        slot, count = work.job.slot, len(chunk)
        start = len(slot.tokens)
        wanted = work.rows if start + count == work.start + len(work.tokens) else 0
        tokens += chunk
        positions += range(start, start + count)
        sequences += [slot.number] * count
        outputs += [False] * (count - wanted) + [True] * wanted
        rows.append(len(tokens) - wanted)
    return Batch(tokens, positions, sequences, outputs), rows
