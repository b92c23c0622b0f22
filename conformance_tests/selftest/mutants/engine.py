"""Mutants of engine.md: batches and standing in line."""

from __future__ import annotations

import pytest

from llmcore import Context
from llmcore.engine import generation, step
from llmcore.engine.job import Job
from llmcore.engine.loop import BatchLoop
from llmcore.engine.scheduling import FirstInFirstOut, OneAtATime, policy_for
from llmcore.engine.slots import SlotPool
from llmcore.engine.step import Stepper
from llmcore.spi import Batch
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(
    kills="batch.shared",
    also={"batch.failed-neighbour": "what is alone already cannot be tried alone"},
)
def serves_one_at_a_time(patch: Patch) -> None:
    """Each call of the engine is for one sequence."""

    def policy(params):
        chosen = policy_for(params)
        return OneAtATime() if params.scheduling == "parallel" else chosen

    patch.setattr(step, "policy_for", policy)


@mutant(kills="batch.decode-first")
def fills_every_batch(patch: Patch) -> None:
    """A prompt takes all the room that a batch has."""
    create = Stepper.__init__

    def init(self, *args):
        create(self, *args)
        self._micro_batch = self._batch_size

    patch.setattr(Stepper, "__init__", init)


@mutant(kills="batch.priority")
def everybody_is_as_urgent(patch: Patch) -> None:
    """Prompts are served by their arrival alone."""
    share = FirstInFirstOut.share

    def by_arrival(self, waiting, budget):
        return share(self, [one._replace(priority=0) for one in waiting], budget)

    patch.setattr(FirstInFirstOut, "share", by_arrival)


@mutant(kills="batch.failed-neighbour")
def fails_all_that_share(patch: Patch) -> None:
    """A failure ends the work of everybody in the batch."""
    recover = Stepper._recover

    def give_up(self, native, plan, error):
        if len(plan) == 1:
            recover(self, native, plan, error)
            return
        for work, _ in plan:
            self._rewind(native, work)
            self._fail(work, error)

    patch.setattr(Stepper, "_recover", give_up)


@mutant(kills="batch.purged")
def evaluates_what_is_gone(patch: Patch) -> None:
    """What a sequence had in line when it was disposed is in the next batch."""
    give_back, serve = SlotPool.give_back, Stepper._step

    def keep(self, slot):
        if slot.busy and not slot.tokens:
            self.left = slot.number
        give_back(self, slot)

    def late(self, native, plan):
        number = vars(self._slots).pop("left", None)
        if number is not None:
            native.decode(Batch([0], [0], [number], [False]))
            native.clear(number)
        serve(self, native, plan)

    patch.setattr(SlotPool, "give_back", keep)
    patch.setattr(Stepper, "_step", late)


@mutant(kills="batch.run-ahead")
def runs_far_ahead(patch: Patch) -> None:
    """A stream that nobody reads goes on for long."""
    patch.setattr(generation, "AHEAD", 48)


@mutant(kills="queue.wait")
def the_last_is_first(patch: Patch) -> None:
    """Whoever came last is served next."""
    right = Job.claim

    def claim(self):
        if self.waiting and self.slot.waiting > 1:
            line = self.slot.line
            if line[-1]() is not self or self.slot.busy:
                return False
            line.insert(0, line.pop())
        return right(self)

    patch.setattr(Job, "claim", claim)


@mutant(kills="queue.full")
def the_line_has_no_end(patch: Patch) -> None:
    """Everybody may wait."""
    patch.setattr(BatchLoop, "_check_line", lambda self: None)


@mutant(kills="queue.timeout")
def the_clock_starts_later(patch: Patch) -> None:
    """The time in line does not count."""
    right = Job.check

    def check(self):
        if not self.waiting:
            right(self)

    patch.setattr(Job, "check", check)


@mutant(kills="queue.timeout")
def times_out_as_if_it_had_not_waited(patch: Patch) -> None:
    """Who waits too long for a sequence hears that there is none."""
    right = Context._wait_for_slot

    def wait(self, timeout):
        slot = right(self, timeout) if timeout is None else None
        if slot is None:
            return self.get_sequence()._slot
        return slot

    patch.setattr(Context, "_wait_for_slot", wait)


@mutant(kills="queue.sequence")
def waits_for_no_sequence(patch: Patch) -> None:
    """`wait` means nothing."""
    right = Context.get_sequence

    def get_sequence(self, *, wait=False, timeout=None):
        return right(self, wait=wait and timeout is not None, timeout=timeout)

    patch.setattr(Context, "get_sequence", get_sequence)
