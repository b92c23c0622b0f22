"""Mutants of context.md."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from attrs import evolve

import llmcore.model
from llmcore import Model, Sequence
from llmcore.backends.null.context import NullContext
from llmcore.backends.null.model import NullModel
from llmcore.engine import loop
from llmcore.engine.loop import StepLoop
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
    stream = Sequence._stream

    def cut(self, prompt, *args, **options):
        return stream(self, prompt[-self.size :], *args, **options)

    monkeypatch.setattr(Sequence, "_stream", cut)


@mutant(kills="context.overflow")
def does_not_count_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an input fits is left to the engine."""
    monkeypatch.setattr(StepLoop, "check_room", lambda *_: None)


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


@mutant(kills="context.independent")
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
        return sum(len(slot.tokens) for slot in list(self._taken.values())[-1:]) + 1

    monkeypatch.setattr(StepLoop, "token_count", property(count))


@mutant(kills="context.clear")
def clears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """clear() looks whether the sequences are free, and leaves it at that."""

    def check(self, *, data):
        with loop.claim_all(list(self._taken.values())):
            pass

    monkeypatch.setattr(StepLoop, "clear_all", check)


@mutant(kills="context.clear-busy")
def clears_under_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """clear() does not look whether a sequence has a user."""
    monkeypatch.setattr(loop, "claim_all", lambda slots: nullcontext())
