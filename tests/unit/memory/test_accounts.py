"""`Llama(budget=...)` and `account()`: what objects may use, and what they do."""

from __future__ import annotations

import pytest

import llmcore
from llmcore.errors import (
    ContextCreationError,
    InsufficientMemoryError,
    ModelLoadError,
    OperationCancelledError,
)
from llmcore.memory import Budget
from llmcore.testing import NullScript, null_backend

MB = 1_000_000


@pytest.fixture(name="script")
def _script():
    return NullScript(model_bytes=MB, kv_bytes_per_token=1000)


@pytest.fixture(name="budget")
def _budget():
    budget = Budget(4 * MB, headroom=0)
    yield budget
    assert budget.holders == {}, "something was never released"


@pytest.fixture(name="llama")
def _llama(script, budget):
    with llmcore.get_llama(null_backend(script), budget=budget) as llama:
        yield llama


def test_what_lives_is_reserved(llama, budget):
    """A model and its contexts hold what they use until they are disposed."""
    with llama.load_model() as model:
        assert budget.reserved == {"cpu": MB}
        with model.create_context(context_size=100):
            assert budget.reserved == {"cpu": MB + 100_000}
        assert budget.reserved == {"cpu": MB}
    assert budget.reserved == {}


def test_the_three_figures(llama):
    """An account shows what was expected, what is reserved, and what is used."""
    with llama.load_model() as model, model.create_context(context_size=100) as context:
        account = context.account()
        assert account.reserved == {"cpu": 100_000}
        assert account.actual.of("cache") == 100_000
        assert "reserved: 97.7 KiB on cpu" in account.explain()
        assert model.account().actual.of("weights") == MB


def test_what_does_not_fit_is_refused(llama, budget):
    """A model beyond the limit is refused, and what there is goes on."""
    with llama.load_model() as model:
        with pytest.raises(InsufficientMemoryError):
            model.create_context(context_size=3001)
        model.create_context(context_size=3000).dispose()
        assert budget.reserved == {"cpu": MB}


@pytest.mark.parametrize(
    ("op", "error"),
    [("load", ModelLoadError), ("create_context", ContextCreationError)],
)
def test_failures_release(llama, script, budget, op, error):
    """A load or a creation that fails in the engine holds nothing."""
    script.fail(op)
    with pytest.raises(error), llama.load_model() as model:
        model.create_context(context_size=100)
    assert budget.holders == {}


def test_cancelled_loads_release(llama, budget):
    """A load that its caller cancels holds nothing, also if it never began."""
    with pytest.raises(OperationCancelledError):
        llama.load_model(progress=lambda share: False)
    assert budget.holders == {}


def test_an_error_of_a_callback_releases(llama, budget):
    """So does one whose callback raises."""
    with pytest.raises(ZeroDivisionError):
        llama.load_model(progress=lambda share: 1 / 0)
    assert budget.holders == {}


def test_no_budget_costs_nothing(script):
    """Without a budget nothing is reserved, and accounts still tell what is used."""
    with llmcore.get_llama(null_backend(script)) as llama, llama.load_model() as model:
        assert llama.budget is None
        assert model.account().reserved == {}
        assert model.account().actual.total == MB


def test_a_limit_is_a_budget(script):
    """``budget=`` takes a limit, too, and two instances can share one budget."""
    with llmcore.get_llama(null_backend(script), budget=MB // 2) as llama:
        with pytest.raises(InsufficientMemoryError):
            llama.load_model()
        with llmcore.get_llama(null_backend(script), budget=llama.budget) as other:
            assert other.budget is llama.budget
