"""Mutants of telemetry.md: what is told while it works."""

from __future__ import annotations

import threading

import pytest
from attrs import evolve

from llmcore.telemetry import RequestTrace, Span, Subscription
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="telemetry.one-end")
def tells_an_end_twice(patch: Patch) -> None:
    """Each end comes twice."""
    right = Span.end

    def end(self, phase, attributes):
        listeners = self._ears
        right(self, phase, attributes)
        self._ears = listeners
        right(self, phase, attributes)

    patch.setattr(Span, "end", end)


@mutant(kills="telemetry.in-time")
def tells_an_end_late(patch: Patch) -> None:
    """The end of an answer that was cut short is told some time later."""
    right = RequestTrace.fail

    def later(self, *args):
        timer = threading.Timer(1.0, right, (self, *args))
        timer.daemon = True
        timer.start()

    patch.setattr(RequestTrace, "fail", later)


@mutant(kills="telemetry.parts")
def forgets_what_it_is_a_part_of(patch: Patch) -> None:
    """The parts of a request have no parent."""
    begin = RequestTrace._begin

    def alone(self, name):
        request, self._request = self._request, Span((), name, None, None, {})
        begin(self, name)
        self._request = request

    patch.setattr(RequestTrace, "_begin", alone)


@mutant(kills="telemetry.counts")
def counts_what_was_evaluated(patch: Patch) -> None:
    """Tokens that were in the cache are left out of the prompt's count."""
    right = RequestTrace.first_token

    def first_token(self, prompt_tokens, reused_tokens):
        right(self, prompt_tokens - reused_tokens, reused_tokens)

    patch.setattr(RequestTrace, "first_token", first_token)


@mutant(kills="telemetry.times")
def waits_until_the_end(patch: Patch) -> None:
    """The time in the queue is counted on to the last token."""
    right = RequestTrace.statistics

    def statistics(self, usage):
        found = right(self, usage)
        return evolve(found, queue_time=found.duration)

    patch.setattr(RequestTrace, "statistics", statistics)


@mutant(kills="telemetry.failing-listener")
def trusts_its_listeners(patch: Patch) -> None:
    """What a listener raises goes through."""

    def hear(self, event):
        if not self._closed:
            self._listener(event)

    patch.setattr(Subscription, "hear", hear)


@mutant(kills="telemetry.closed")
def nobody_can_leave(patch: Patch) -> None:
    """A subscription that is closed goes on."""
    patch.setattr(Subscription, "close", lambda self: None)
