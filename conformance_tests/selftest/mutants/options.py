"""Mutants of generation.md: what an answer is asked to do and to tell."""

from __future__ import annotations

import math
import sys

import pytest
from attrs import evolve

import llmcore.sequence
from llmcore import Stream
from llmcore.engine import generation, logprobs
from llmcore.engine.callers import call
from llmcore.engine.generation import Generation
from llmcore.engine.job import Job
from llmcore.engine.loop import BatchLoop
from llmcore.engine.samplers import Drawer
from llmcore.errors import BackendError
from llmcore.events import Usage
from llmcore.telemetry.request import RequestTrace
from mutants import mutant

Patch = pytest.MonkeyPatch


def ignore(patch: Patch, **default: object) -> None:
    """Generate as if some options had not been given."""
    right = llmcore.sequence.merge_options

    def merge_options(params, options):
        sampling, more = right(params, options)
        return sampling, evolve(more, **default)

    patch.setattr(llmcore.sequence, "merge_options", merge_options)


@mutant(kills="gen.stop-token")
def ignores_stop_tokens(patch: Patch) -> None:
    """Stop tokens are tokens like all others, once they may be drawn at once."""
    right = Generation._accept

    def accept(self, token):
        if not self.request.options.min_tokens:
            self._stops = frozenset()
        return right(self, token)

    patch.setattr(Generation, "_accept", accept)


@mutant(kills="gen.ignore-eos")
def always_ends_at_the_end(patch: Patch) -> None:
    """An end token ends each answer that has no processor of its own."""
    right = llmcore.sequence.merge_options

    def merge_options(params, options):
        sampling, more = right(params, options)
        plain = not more.logits_processors
        return sampling, evolve(more, ignore_eos=more.ignore_eos and not plain)

    patch.setattr(llmcore.sequence, "merge_options", merge_options)


@mutant(kills="gen.min-tokens")
def ends_early(patch: Patch) -> None:
    """`min_tokens` is not looked at."""
    ignore(patch, min_tokens=0)


@mutant(kills="gen.cancel-prompt")
def cancels_after_the_prompt(patch: Patch) -> None:
    """A prompt that was begun is evaluated to its end."""
    cancel, take = Generation.cancel, Generation.take

    def later(self):
        begun = self._report is not None and not self.running
        if begun and self.left > len(self.tokens) // 2:
            self.cancelled_later = True
        else:
            cancel(self)

    def taken(self, native, row):
        take(self, native, row)
        if getattr(self, "cancelled_later", False):
            cancel(self)

    patch.setattr(Generation, "cancel", later)
    patch.setattr(Generation, "take", taken)


@mutant(kills="gen.task-cancel")
def cancelled_tasks_hold_on(patch: Patch) -> None:
    """A stream whose task was cancelled keeps its sequence."""
    right = Stream._end

    def end(self):
        if type(sys.exception()).__name__ not in ("CancelledError", "Cancelled"):
            right(self)
        self._over = True

    patch.setattr(Stream, "_end", end)


@mutant(kills="gen.timeout")
def has_time(patch: Patch) -> None:
    """Once it is served, a generation has all the time in the world."""
    right = Job.check

    def check(self):
        if not self.waiting:
            self.deadline = None
        right(self)

    patch.setattr(Job, "check", check)


@mutant(kills="gen.timeout")
def only_readers_look_at_the_clock(patch: Patch) -> None:
    """The engine leaves a stream alone that nobody reads, however late it is."""
    patch.setattr(BatchLoop, "_patience", lambda self: None)


@mutant(kills="gen.events")
def does_not_tell_the_cost(patch: Patch) -> None:
    """There is no `Usage` among the events."""
    right = Stream.__next__

    def following(self):
        event = right(self)
        return right(self) if isinstance(event, Usage) else event

    patch.setattr(Stream, "__next__", following)


@mutant(kills="gen.usage")
def counts_what_was_cached(patch: Patch) -> None:
    """All of a prompt is paid for, though it was in the cache."""
    prefilled = RequestTrace.first_token

    def usage(**numbers):
        return Usage(**{**numbers, "cached_tokens": 0})

    patch.setattr(generation, "Usage", usage)
    patch.setattr(  # who listens is told the same
        RequestTrace,
        "first_token",
        lambda self, prompt, reused: prefilled(self, prompt, 0),
    )


@mutant(kills="gen.logprobs")
def tells_bits(patch: Patch) -> None:
    """Log probabilities are in bits."""
    right = logprobs.logprobs

    def bits(logits, token, top):
        own, best = right(logits, token, top)
        unit = math.log(2)
        return own / unit, [(other, value / unit) for other, value in best]

    patch.setattr(logprobs, "logprobs", bits)


@mutant(kills="gen.logits-processor")
def drops_what_is_returned(patch: Patch) -> None:
    """A processor can only change the array that it is given; random draws aside."""
    right = Drawer._processed

    def processed(self, logits, tokens):
        if self._core._params.temperature:
            return right(self, logits, tokens)
        for processor in self._processors:
            call(processor, tokens, logits)
        return logits

    patch.setattr(Drawer, "_processed", processed)


@mutant(kills="gen.processor-error")
def blames_the_engine(patch: Patch) -> None:
    """What a processor raises is reported as an error of the engine."""
    right = BatchLoop._as_seen_by

    def seen(self, job, error):
        found = right(self, job, error)
        if type(found) is LookupError:
            return BackendError(str(found))
        return found

    patch.setattr(BatchLoop, "_as_seen_by", seen)
