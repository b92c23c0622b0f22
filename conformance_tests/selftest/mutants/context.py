"""Mutants of context.md."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from attrs import evolve

import llmcore.model
from llmcore import Model, Sequence
from llmcore.backends.null.context import NullContext
from llmcore.backends.null.model import NullModel
from llmcore.engine import slots
from llmcore.engine.cache import Cache
from llmcore.engine.slots import SlotPool
from llmcore.values import merge
from mutants import mutant


@mutant(kills="context.size")
def gives_less_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large contexts are made half as large, without a word."""
    create = NullModel.create_context

    def smaller(self, params):
        if params.context_size > 256:
            params = evolve(params, context_size=params.context_size // 2)
        return create(self, params)

    monkeypatch.setattr(NullModel, "create_context", smaller)


@mutant(kills="context.parameters")
def takes_any_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter out of range is replaced by its default."""

    def lenient(kind, params, fields):
        try:
            return merge(kind, params, fields)
        except ValueError:
            return params or kind()

    monkeypatch.setattr(llmcore.model, "merge", lenient)


@mutant(kills="context.overflow")
def cuts_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is too long loses its beginning."""
    generate = Sequence.generate

    def cut(self, tokens, *args, **options):
        return generate(self, list(tokens)[-self.size :], *args, **options)

    monkeypatch.setattr(Sequence, "generate", cut)


@mutant(kills="context.overflow")
def does_not_count_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an input fits is left to the engine."""
    monkeypatch.setattr(Cache, "check_room", lambda *_: None)


@mutant(kills="context.failed-creation")
def keeps_a_lease_on_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hold that protects a creation is not ended if it fails."""
    create = Model.create_context

    def held(self, *args, **fields):
        lease = self.lease()
        context = create(self, *args, **fields)
        lease.release()
        return context

    monkeypatch.setattr(Model, "create_context", held)


@mutant(
    kills="context.independent",
    also={"det.alone": "a context that it compares with may close meanwhile"},
)
def closes_all_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a context empties the others of its model as well."""
    create, close = NullModel.create_context, NullContext.close
    live: list[NullContext] = []

    def created(self, params):
        live.append(create(self, params))
        return live[-1]

    def closed(self):
        live.remove(self)
        for other in live:
            if other.model is self.model:
                for cells in other._cells:
                    cells.clear()
        close(self)

    monkeypatch.setattr(NullModel, "create_context", created)
    monkeypatch.setattr(NullContext, "close", closed)


@mutant(kills="context.memory")
def counts_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last sequence that was taken is counted."""

    def count(self):
        return sum(len(slot.tokens) for slot in self.taken[-1:]) + 1

    monkeypatch.setattr(SlotPool, "token_count", property(count))


@mutant(kills="context.clear")
def clears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """clear() looks whether the sequences are free, and leaves it at that."""

    def check(self, *, data):
        with slots.claim_all(self.taken):
            pass

    monkeypatch.setattr(SlotPool, "clear_all", check)


@mutant(kills="context.clear-busy")
def clears_under_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """clear() does not look whether a sequence has a user."""
    monkeypatch.setattr(slots, "claim_all", lambda taken: nullcontext())
