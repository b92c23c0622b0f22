"""Mutants of sequence.md: what is kept of a cache, and what is dropped."""

from __future__ import annotations

from weakref import WeakSet

import pytest

from llmcore import Sequence
from llmcore.backends.null.backend import NullBackend
from llmcore.chat_history import Shortener
from llmcore.engine import cache, generation
from llmcore.engine.cache import Cache
from llmcore.engine.checkpoints import Checkpoints
from llmcore.engine.reuse import Reuse
from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability, Shift, evolve
from mutants import Create, mutant


def forgetful() -> NullBackend:
    """A right engine whose cache goes back by checkpoints only."""
    return NullBackend(NullScript(cache_kind=CacheKind.RECURRENT))


@mutant(kills="seq.again")
def evaluates_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is cached to its end is evaluated from its start."""
    real = cache.plan_reuse

    def plan(cached, prompt, *, move=False):
        found = real(cached, prompt, move=move)
        whole = found.matched == len(prompt) - 1 and len(cached) > len(prompt)
        return Reuse(0, 0, 0, "it was cached") if whole else found

    monkeypatch.setattr(cache, "plan_reuse", plan)


@mutant(kills="seq.again")
def remembers_no_place(monkeypatch: pytest.MonkeyPatch) -> Create:
    """A cache that cannot drop a part of itself always begins anew."""
    monkeypatch.setattr(Checkpoints, "newest", lambda self, slot, length: None)
    return forgetful


@mutant(kills="seq.checkpoint-bound")
def keeps_every_place(monkeypatch: pytest.MonkeyPatch) -> Create:
    """The limit bounds each state, not all of them together."""
    take = Checkpoints.take

    def hoard(self, native, slot):
        used, self.used = self.used, 0
        take(self, native, slot)
        self.used += used

    monkeypatch.setattr(Checkpoints, "take", hoard)
    return forgetful


@mutant(kills="reuse.report")
def reports_what_it_hoped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first event tells of tokens that were moved, although none were."""
    hit = generation.CacheHit

    def hopeful(*, report):
        moved = min(report.matched, 8)
        return hit(report=evolve(report, shifted=report.shifted + moved))

    monkeypatch.setattr(generation, "CacheHit", hopeful)


@mutant(kills="reuse.report")
def forgets_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has numbers and no reason."""
    reuse = Cache.reuse

    def silent(self, native, slot, prompt, *, move=False):
        return evolve(reuse(self, native, slot, prompt, move=move), reason="")

    monkeypatch.setattr(Cache, "reuse", silent)


@mutant(kills="shift.explicit")
def shifts_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full sequence drops its oldest half without being asked, once."""
    room_made, shifted = generation.room_made, WeakSet()

    def always(policy, native, cache, slot):
        if policy == "error" and slot not in shifted:
            shifted.add(slot)
            policy = Shift(keep=0)
        return room_made(policy, native, cache, slot)

    monkeypatch.setattr(generation, "room_made", always)


@mutant(kills="shift.keep")
def keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest tokens go, whatever was to be kept."""
    drop = Cache.drop

    def oldest(self, native, slot, keep, count):
        return drop(self, native, slot, 0, count)

    monkeypatch.setattr(Cache, "drop", oldest)


@mutant(kills="shift.undeclared")
def ignores_the_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be shifted the option is dropped in silence."""
    stream = Sequence._stream

    def lenient(self, request, on_result=None):
        able = {Capability.SHIFT, Capability.PARTIAL_REMOVE}
        if not able <= self.context.model.capabilities:
            options = evolve(request.options, overflow="error")
            request = evolve(request, options=options)
        return stream(self, request, on_result)

    monkeypatch.setattr(Sequence, "_stream", lenient)


@mutant(kills="chat.shorten")
def drops_the_system_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest message goes first, whatever it is."""
    shorten = Shortener._without_oldest

    def oldest(self, messages, count, room):
        shown = shorten(self, messages, count, room)
        return shown if len(shown) == len(messages) else shown[1:]

    monkeypatch.setattr(Shortener, "_without_oldest", oldest)
