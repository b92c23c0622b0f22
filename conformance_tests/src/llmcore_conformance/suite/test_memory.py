"""Estimates, accounts and budgets: memory.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve

import llmcore
from llmcore import Llama, Model
from llmcore.errors import (
    ContextCreationError,
    InsufficientMemoryError,
    ModelLoadError,
    OperationCancelledError,
)
from llmcore.memory import RAM, Budget, Footprint, Reservation, Term
from llmcore.values import CacheKind, Capability
from llmcore_conformance import clause
from llmcore_conformance.ledger import RecordingBackend, SeamLedger
from llmcore_conformance.models import tiny_llama
from llmcore_conformance.probes import SIZE
from llmcore_conformance.target import Target

LIMIT = 1 << 50
HEADROOM = 0.25
NEIGHBOUR = "another program"

Fill = Callable[[float], Reservation]


@pytest.fixture(scope="module")
def ledger(patience: float) -> SeamLedger:
    """The record of what happens at the seam of `llama`."""
    return SeamLedger(patience)


@pytest.fixture(scope="module")
def budget() -> Budget:
    """Much more than anybody needs, unless it is filled."""
    return Budget(LIMIT, headroom=HEADROOM)


@pytest.fixture(scope="module")
def reader(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The target, given a model file if it reads none: core reads the header."""
    info = target.describe()
    if info.formats:
        return target
    path = tiny_llama(tmp_path_factory.mktemp("model") / "tiny.gguf")
    read = evolve(info, formats=("gguf",))
    return evolve(target, describe=lambda: read).on(path)


def opened(reader: Target, ledger: SeamLedger, budget: Budget) -> Llama:
    """A new instance with a budget."""
    backend = RecordingBackend(reader.create(), reader.describe(), ledger)
    return llmcore.get_llama(backend, budget=budget)


@pytest.fixture(scope="module")
def llama(
    reader: Target, ledger: SeamLedger, budget: Budget, patience: float
) -> Iterator[Llama]:
    """An instance with a budget, for all tests here; each leaves it as it was."""
    llama = opened(reader, ledger, budget)
    yield llama
    with suppress(Exception):
        llama.dispose(timeout=patience)


@pytest.fixture(scope="module")
def model(reader: Target, llama: Llama) -> Model:
    """The model under test."""
    return reader.load(llama)


@pytest.fixture
def fill(budget: Budget) -> Iterator[Fill]:
    """``fill(room)`` takes all of the budget but so many bytes, for somebody else."""
    taken: list[Reservation] = []

    def fill(room: float) -> Reservation:
        free = budget.pools[0].free
        assert free is not None
        size = int((free - room) / (1 + HEADROOM))
        term = Term(device=RAM, purpose="other", size=size)
        taken.append(budget.share(NEIGHBOUR).reserve(Footprint((term,)), NEIGHBOUR))
        return taken[-1]

    yield fill
    for reservation in taken:
        reservation.release()


def with_headroom(footprint: Footprint) -> Mapping[str, int]:
    """What is reserved for so much."""
    sizes = footprint.devices.items()
    return {device: round(size * (1 + HEADROOM)) for device, size in sizes}


# -- estimates -------------------------------------------------------------------------


@clause("memory.estimate-sum")
def test_an_estimate_is_the_sum_of_its_terms(model: Model) -> None:
    """Its devices and its purposes add up to its total, and each term has a reason."""
    estimate = model.estimate(context_size=SIZE)
    total = sum(term.size for term in estimate)
    assert estimate.total == total
    assert sum(estimate.devices.values()) == total
    assert sum(estimate.purposes.values()) == total
    silent = [term for term in estimate if not term.why]
    assert not silent, f"no reason is given for {silent}"


@clause("memory.estimate-grows")
def test_an_estimate_grows_with_the_context(model: Model) -> None:
    """Twice the tokens are twice the bytes, or at least not fewer."""
    sizes = (1024, 2048, 4096)
    caches = [model.estimate(context_size=size).of("cache") for size in sizes]
    assert caches == sorted(caches), f"it falls: {caches}"
    if model.info.cache_kind is CacheKind.FULL:
        assert caches == [caches[0], 2 * caches[0], 4 * caches[0]]


@clause("memory.estimate-only")
def test_an_estimate_creates_and_reserves_nothing(
    model: Model, ledger: SeamLedger, budget: Budget, fill: Fill
) -> None:
    """All is as before, and with a full budget it is the same figure."""
    before = (dict(budget.holders), ledger.live, ledger.order("create_context"))
    estimate = model.estimate(context_size=SIZE)
    after = (dict(budget.holders), ledger.live, ledger.order("create_context"))
    assert after == before, "an estimate did more than to count"
    fill(0)
    assert model.estimate(context_size=SIZE) == estimate


# -- accounts --------------------------------------------------------------------------


@clause("memory.actual")
def test_an_account_tells_what_the_engine_says(model: Model) -> None:
    """The bytes used are those of ``info`` and ``memory_info``, not the estimate."""
    assert model.account().actual.of("weights") == model.info.size_bytes
    with model.create_context(context_size=SIZE, threads=1) as context:
        told, used = context.memory_info(), context.account().actual
        assert used.of("cache") == told.kv_cache_size
        assert used.of("compute") == told.compute_size
        assert used.total == told.kv_cache_size + told.compute_size


@clause("memory.settled")
def test_what_is_used_is_reserved(model: Model, budget: Budget) -> None:
    """The headroom on top of what the engine says is held, not on top of a guess."""
    before = sum(budget.holders.values())
    with model.create_context(context_size=SIZE, threads=1) as context:
        reserved = context.account().reserved
        assert reserved == with_headroom(context.footprint())
        held = sum(budget.holders.values()) - before
        assert held == sum(reserved.values()), "the budget holds another sum"
    assert model.account().reserved == with_headroom(model.footprint())


@clause("memory.released")
def test_disposing_gives_the_memory_back(reader: Target, budget: Budget) -> None:
    """First what the context held, then what the model held."""
    before = dict(budget.holders)
    with opened(reader, SeamLedger(), budget) as llama:
        model = reader.load(llama)
        with_model = dict(budget.holders)
        model.create_context(context_size=SIZE, threads=1).dispose()
        assert budget.holders == with_model, "a context is disposed and holds bytes"
        model.dispose()
        assert budget.holders == before, "a model is disposed and holds bytes"


# -- budgets ---------------------------------------------------------------------------


@clause("memory.refused")
def test_what_does_not_fit_is_refused_unseen(
    reader: Target, llama: Llama, model: Model, ledger: SeamLedger, fill: Fill
) -> None:
    """With a full budget the engine is asked for no model, and for no context."""
    fill(0)
    before = ledger.order("load", "create_context")
    with pytest.raises(InsufficientMemoryError):
        reader.load(llama)
    if "gguf" in llama.backend.formats:  # else there is no header that core could read
        with pytest.raises(InsufficientMemoryError):
            model.create_context(context_size=SIZE, threads=1)
    assert ledger.order("load", "create_context") == before, "the engine was asked"


@clause("memory.account")
def test_a_refusal_names_all_who_hold_something(
    reader: Target, llama: Llama, model: Model, budget: Budget, fill: Fill
) -> None:
    """It has what was needed, the limit, and each holder with its bytes."""
    fill(0)
    with pytest.raises(InsufficientMemoryError) as caught:
        reader.load(llama)
    account = caught.value.account
    assert account is not None, "the error has no account"
    (pool,) = account.pools
    assert pool.limit == LIMIT
    assert account.footprint.total * (1 + HEADROOM) > pool.free, (
        "that would have fitted"
    )
    missing = budget.holders.items() - account.holders.items()
    assert not missing, f"it leaves out {missing}"
    unnamed = [name for name in budget.holders if name not in account.explain()]
    assert not unnamed, f"explain() leaves out {unnamed}"


def failing_load(reader: Target, llama: Llama, model: Model, ledger: Any) -> None:
    ledger.fail("load")
    with pytest.raises(ModelLoadError):
        reader.load(llama)


def failing_creation(reader: Target, llama: Llama, model: Model, ledger: Any) -> None:
    ledger.fail("create_context")
    with pytest.raises(ContextCreationError):
        model.create_context(context_size=SIZE, threads=1)


def cancelled_load(reader: Target, llama: Llama, model: Model, ledger: Any) -> None:
    if Capability.CANCEL_LOAD in llama.capabilities:
        with pytest.raises(OperationCancelledError):
            llama.load_model(reader.model_path, progress=lambda share: False)


@clause("memory.failed")
@pytest.mark.parametrize("attempt", [failing_load, failing_creation, cancelled_load])
def test_a_failure_leaves_nothing_reserved(
    reader: Target,
    llama: Llama,
    model: Model,
    ledger: SeamLedger,
    budget: Budget,
    attempt: Callable[..., None],
) -> None:
    """After a load or a creation that failed the same bytes are held as before."""
    before = dict(budget.holders)
    attempt(reader, llama, model, ledger)
    left = budget.holders.keys() - before.keys()
    assert budget.holders == before, f"still reserved: {left}"


@clause("memory.limit")
def test_what_is_being_created_counts(
    model: Model, ledger: SeamLedger, fill: Fill
) -> None:
    """With room for one, a second context is refused while the first is made."""
    if "gguf" not in model.backend.formats:
        return  # there is no header that core could read
    needed = model.estimate(context_size=SIZE, threads=1).total * (1 + HEADROOM)
    fill(1.5 * needed)
    refused: list[InsufficientMemoryError] = []

    def create() -> None:
        try:
            model.create_context(context_size=SIZE, threads=1).dispose()
        except InsufficientMemoryError as error:
            refused.append(error)

    ledger.during("create_context", create)
    with suppress(InsufficientMemoryError):  # the guess may be too low: not our claim
        model.create_context(context_size=SIZE, threads=1).dispose()
    assert refused, "both were created at the same time"
