"""Mutants of memory.md: estimates, accounts and budgets."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from attrs import evolve

import llmcore.context
import llmcore.model
from llmcore import Context, Model
from llmcore.memory import Budget, Footprint
from llmcore.values import ContextParams
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="memory.estimate-sum")
def adds_the_headroom(patch: Patch) -> None:
    """The total of an estimate has the headroom in it, and its terms have not."""
    right = Model.estimate

    class Padded(Footprint):
        @property
        def total(self):
            return round(1.2 * sum(term.size for term in self))

    patch.setattr(
        Model, "estimate", lambda self, *a, **f: Padded(right(self, *a, **f).terms)
    )


@mutant(kills="memory.estimate-grows")
def stops_counting(patch: Patch) -> None:
    """An estimate counts no more than 1024 tokens."""
    right = Model.estimate

    def estimate(self, params=None, **fields):
        if "context_size" in fields:
            fields["context_size"] = min(1024, fields["context_size"])
        return right(self, params, **fields)

    patch.setattr(Model, "estimate", estimate)


@mutant(kills="memory.estimate-only")
def tries_it_out(patch: Patch) -> None:
    """An estimate is what a context that was made for it uses."""
    right = Model.estimate

    def estimate(self, params=None, **fields):
        if params is None and fields.get("context_size", 512) <= 256:
            self.create_context(params, **fields).dispose()
        return right(self, params, **fields)

    patch.setattr(Model, "estimate", estimate)


@mutant(kills="memory.actual")
def believes_its_estimate(patch: Patch) -> None:
    """What was estimated is shown as used."""
    right = Context.account

    def account(self):
        found = right(self)
        return evolve(found, actual=found.estimated)

    patch.setattr(Context, "account", account)


@mutant(kills="memory.settled")
def keeps_to_its_estimate(patch: Patch) -> None:
    """What was estimated for a context stays reserved, whatever it uses."""
    patch.setattr(llmcore.model, "settled", lambda context, reservation: context)


@mutant(kills="memory.released")
def forgets_what_contexts_had(patch: Patch) -> None:
    """What a context had reserved is released with the program."""
    right = llmcore.context._close

    def close(engine, reservation, native):
        counts_elsewhere = reservation is None or reservation.by is not None
        right(engine, reservation if counts_elsewhere else None, native)

    patch.setattr(llmcore.context, "_close", close)


@mutant(
    kills="memory.refused",
    also={"memory.limit": "what was not estimated cannot be counted"},
)
def looks_afterwards(patch: Patch) -> None:
    """Whether a context fits is asked when it is there."""
    estimate = Model._estimate
    patch.setattr(
        Model,
        "estimate",
        lambda self, params=None, **fields: estimate(
            self, params or ContextParams(**fields)
        ),
    )
    patch.setattr(Model, "_estimate", lambda self, params: Footprint())


@mutant(kills="memory.account")
def names_nobody(patch: Patch) -> None:
    """The account says what is missing, and not who has it."""
    right = Budget._account
    patch.setattr(
        Budget, "_account", lambda self, *a: evolve(right(self, *a), holders={})
    )


@mutant(kills="memory.failed")
def holds_on_to_what_failed(patch: Patch) -> None:
    """What was reserved for a context that could not be created stays reserved."""
    patch.setattr(llmcore.model, "releasing", nullcontext)


@mutant(kills="memory.limit")
def counts_what_is_there(patch: Patch) -> None:
    """What is being created is not counted before it is there."""
    right = Budget.reserve

    def reserve(self, *args, **options):
        made = right(self, *args, **options)
        if made.by is None:
            made._amounts = {}
        return made

    patch.setattr(Budget, "reserve", reserve)
