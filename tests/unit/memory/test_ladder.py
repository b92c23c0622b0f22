"""The ladder: what is given up when memory is short, in which order, and what never."""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import pairwise

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from llmcore.errors import (
    InsufficientMemoryError,
)
from llmcore.memory import Budget, Footprint, Shortage, Term
from llmcore.memory.cache import BLOCKS
from llmcore.memory.fitting import fit, ladder_of
from llmcore.memory.ladder import (
    LADDER,
    EvictIdle,
    Plan,
    Room,
    SmallerBatch,
    SmallerCacheType,
    SmallerContext,
    ToCpu,
    lacking,
)
from llmcore.params import ContextParams, ModelParams

from .ladder_model import FIELDS, WANTED, WEIGHTS, needs, path_down, room


def test_what_fits_stays():
    """A plan that fits is the one that was asked for, and took no step."""
    fitted = fit(WANTED, room(10**12))
    assert (WANTED, ()) == (fitted.plan, fitted.steps)
    assert needs(WANTED) == fitted.footprint


def test_the_order_is_the_ladders():
    """Batch, cache types, context, layers, CPU: each only when the last had nothing."""
    plans, error = path_down(WANTED, room(10**12))
    order = [step.name for step in LADDER]
    seen = [sentence.split(" (")[0] for sentence in error.account.steps]
    assert sorted(seen, key=order.index) == seen
    assert set(order) == set(seen)
    assert ModelParams(gpu_layers=0) == plans[-1].model


@given(pinned=st.frozensets(st.sampled_from(FIELDS)))
def test_what_is_pinned_is_never_touched(pinned):
    """Whatever the caller gave is in every plan down to the end."""
    wanted = evolve(WANTED, pinned=pinned)
    for plan in path_down(wanted, room(10**12))[0]:
        for name in pinned:
            params = "model" if name == "gpu_layers" else "context"
            asked = getattr(getattr(wanted, params), name)
            assert asked == getattr(getattr(plan, params), name)


@given(
    size=st.integers(8, 100_000),
    sequences=st.integers(1, 9),
    batch=st.integers(9, 3000),
    micro=st.integers(1, 3000),
    types=st.tuples(*[st.sampled_from(sorted(BLOCKS))] * 2),
)
def test_bytes_never_grow(size, sequences, batch, micro, types):
    """Each plan needs no more than the one before it, in total and on the GPU."""
    context = ContextParams(
        context_size=size,
        sequences=sequences,
        batch_size=batch,
        micro_batch_size=micro,
        kv_type_k=types[0],
        kv_type_v=types[1],
    )
    footprints = [needs(p) for p in path_down(Plan(context=context), room(10**12))[0]]
    for before, after in pairwise(footprints):
        assert after.total <= before.total
        assert after.on("gpu") <= before.on("gpu")
        assert after != before


@given(limit=st.integers(0, 60_000_000), gpu=st.integers(0, 60_000_000))
def test_what_is_said_to_fit_fits(limit, gpu):
    """The answer is within the budget of each device, or it is an error."""
    place = room({"cpu": limit, "gpu": gpu})
    with suppress(InsufficientMemoryError):
        fitted = fit(WANTED, place)
        assert place.short(fitted.plan) is None
        assert all(step.gained > 0 for step in fitted.steps)


def test_no_step_more_than_needed():
    """It ends with the first plan that fits: the one before it does not."""
    steps = fit(WANTED, room(needs(WANTED).total - 1)).steps
    assert ["smaller batch"] == [step.name for step in steps]
    assert (2000 + 100) * 256 == steps[0].gained
    assert steps[0].sentence == (
        "smaller batch (batch_size 512 to 256, micro_batch_size 512 to 256) "
        "gained 525.0 KiB"
    )


def test_layers_are_as_many_as_fit():
    """Of the layers as many stay on the GPU as fit, not one less."""
    place = room({"cpu": None, "gpu": 5 * WEIGHTS + 10_000_000})
    pinned = frozenset(FIELDS) - {"gpu_layers"}
    layers = fit(evolve(WANTED, pinned=pinned), place).plan.model.gpu_layers
    assert place.short(WANTED.with_model(gpu_layers=layers)) is None
    assert place.short(WANTED.with_model(gpu_layers=layers + 1)) is not None


def test_a_step_that_gains_nothing_is_skipped():
    """Where the RAM is short, nothing is moved there from the GPU."""
    pinned = frozenset(FIELDS) - {"gpu_layers", "offload_kv"}
    plan = evolve(WANTED.with_model(gpu_layers=4), pinned=pinned)
    with pytest.raises(InsufficientMemoryError) as caught:
        fit(plan, room({"cpu": 1000, "gpu": None}))
    assert () == caught.value.account.steps


def test_a_ladder_can_be_edited():
    """A ladder of one's own has its own steps in its own order."""
    ladder = (SmallerContext(), SmallerBatch())
    _, error = path_down(WANTED, room(10**12), ladder)
    names = [sentence.split(" (")[0] for sentence in error.account.steps]
    assert ["smaller context"] * 4 + ["smaller batch"] * 3 == names


@frozen
class FewerSequences:
    """A step of an application."""

    name: str = "fewer sequences"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        count = plan.context.sequences
        return plan.with_context(sequences=count - 1) if count > 1 else None


def test_a_step_can_be_written():
    """Whatever has a name and can be applied is a step."""
    fitted = fit(WANTED, room(needs(WANTED).total - 1), (FewerSequences(),))
    assert 1 == fitted.plan.context.sequences


def test_a_foreign_step_cannot_touch_what_is_pinned():
    """Even a step that does not look at what is pinned cannot change it."""
    plan = evolve(WANTED, pinned=frozenset({"sequences"}))
    with pytest.raises(InsufficientMemoryError):
        fit(plan, room(1), (FewerSequences(),))


def test_idle_ones_go_first():
    """Evicting is asked for the bytes that are missing, and leaves the plan alone."""
    budget = Budget(needs(WANTED).total, headroom=0.0)
    idle = budget.reserve(
        Footprint((Term(device="cpu", purpose="weights", size=99),)), ""
    )
    asked: list[int] = []

    def evict(size: int) -> int:
        asked.append(size)
        idle.release()
        return 99

    place = evolve(room(0), shortage=lambda f: budget.shortage(f, "the model"))
    fitted = fit(WANTED, place, (EvictIdle(evict), *LADDER))
    assert [99] == asked
    assert WANTED == evolve(fitted.plan, evicted=0)
    assert ["evict idle gained 99 B"] == [step.sentence for step in fitted.steps]


def test_the_account_has_every_step():
    """At the end the error tells what was tried and what each step gained."""
    with pytest.raises(
        InsufficientMemoryError, match="steps down the ladder"
    ) as caught:
        fit(WANTED, room(1000))
    account = caught.value.account
    assert isinstance(account, Shortage)
    assert lacking(account)
    assert len(account.steps) > 10
    assert all("gained" in sentence for sentence in account.steps)
    assert account.explain().endswith(account.steps[-1])


def test_each_step_is_logged(caplog):
    """Nothing is given up invisibly: each step is a warning with its bytes."""
    with caplog.at_level(logging.WARNING, "llmcore.memory"):
        steps = fit(WANTED, room(20_000_000)).steps
    said = [record.getMessage() for record in caplog.records]
    assert [f"memory is short: {step.sentence}" for step in steps] == said


# -- what a cache can be ---------------------------------------------------------------


def test_values_become_smaller_before_keys():
    """f16 to q8_0 to q4_0, and of two that are equal the values first."""
    types = [
        (plan.context.kv_type_k, plan.context.kv_type_v)
        for plan in path_down(WANTED, room(10**12), (SmallerCacheType(),))[0]
    ]
    assert [
        *(("f16", "f16"), ("f16", "q8_0"), ("q8_0", "q8_0")),
        *(("q8_0", "q4_0"), ("q4_0", "q4_0")),
    ] == types


def test_f32_becomes_f16_first():
    """A cache in f32 goes to f16 before anything is quantised."""
    wanted = WANTED.with_context(kv_type_k="f32")
    plans = path_down(wanted, room(10**12), (SmallerCacheType(),))[0]
    assert ("f16", "f16") == (plans[1].context.kv_type_k, plans[1].context.kv_type_v)


def test_no_quantised_values_without_flash_attention():
    """Where flash attention is off only the keys are quantised."""
    wanted = WANTED.with_context(flash_attention=False)
    last = path_down(wanted, room(10**12), (SmallerCacheType(),))[0][-1]
    assert ("q4_0", "f16") == (last.context.kv_type_k, last.context.kv_type_v)


def test_what_the_model_cannot_have_is_skipped():
    """A cache type that the model cannot have is no step; the other part still is."""
    place = room(10**12, allows=lambda plan: plan.context.kv_type_v == "f16")
    last = path_down(WANTED, place, (SmallerCacheType(),))[0][-1]
    assert ("q4_0", "f16") == (last.context.kv_type_k, last.context.kv_type_v)


def test_the_context_has_a_floor():
    """The context is halved down to what the caller said, and not below."""
    wanted = evolve(WANTED, least_context=3000)
    plans = path_down(wanted, room(10**12), (SmallerContext(),))[0]
    assert [8192, 4096, 3000] == [plan.context.context_size for plan in plans]


def test_a_batch_stays_as_large_as_the_sequences():
    """A batch never becomes smaller than 64, nor than the number of sequences."""
    wanted = WANTED.with_context(sequences=100)
    last = path_down(wanted, room(10**12), (SmallerBatch(),))[0][-1]
    assert (100, 100) == (last.context.batch_size, last.context.micro_batch_size)
    last = path_down(WANTED, room(10**12), (SmallerBatch(),))[0][-1]
    assert 64 == last.context.batch_size


def test_fit_means_a_ladder():
    """False is no step, True the usual ladder, and a sequence itself."""
    assert ((), LADDER) == (ladder_of(False), ladder_of(True))
    assert (ToCpu(),) == ladder_of([ToCpu()])
