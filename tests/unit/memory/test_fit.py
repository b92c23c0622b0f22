"""``fit=`` of `load_model` and `create_context`, by scripted failures of the engine."""

from __future__ import annotations

import pytest

import llmcore
from llmcore.errors import InsufficientMemoryError, ModelLoadError
from llmcore.memory.ladder import EvictIdle, SmallerContext
from llmcore.testing import NullScript, null_backend


@pytest.fixture(name="script")
def _script():
    return NullScript()


@pytest.fixture(name="llama")
def _llama(script):
    with llmcore.get_llama(null_backend(script)) as llama:
        yield llama


@pytest.fixture(name="model")
def _model(llama):
    with llama.load_model() as model:
        yield model


def fail(script, op, times):
    """Let the engine have no memory for so many calls."""
    script.fail(op, times=times, error=InsufficientMemoryError)


def test_nothing_is_given_up_unasked(script, model):
    """By default the engine's failure is the caller's, and nothing became smaller."""
    fail(script, "create_context", 1)
    with pytest.raises(InsufficientMemoryError, match=r"^scripted failure"):
        model.create_context()


def test_a_context_goes_down_the_ladder(script, model):
    """With ``fit=True`` the next smaller context is made, and it tells what it cost."""
    fail(script, "create_context", 2)
    with model.create_context(fit=True) as context:
        assert ["smaller batch"] * 2 == [step.name for step in context.fitted.steps]
        assert 128 == context.params.batch_size
        assert 2048 == context.params.context_size


def test_what_was_given_stays(script, model):
    """Fields that the caller gave are as they were given, at every step."""
    fail(script, "create_context", 2)
    given = {"batch_size": 512, "kv_type_k": "f16", "kv_type_v": "f16"}
    with model.create_context(**given, micro_batch_size=512, fit=True) as context:
        assert all(getattr(context.params, name) == given[name] for name in given)
        assert {"smaller context"} == {step.name for step in context.fitted.steps}


def test_own_steps(script, model):
    """``fit`` can be a ladder of one's own."""
    fail(script, "create_context", 1)
    with model.create_context(fit=[SmallerContext()]) as context:
        assert (1024, 512) == (context.params.context_size, context.params.batch_size)


def test_the_end_of_the_ladder(script, model):
    """If nothing helps, the error has all steps, and the model is as before."""
    fail(script, "create_context", None)
    with pytest.raises(
        InsufficientMemoryError, match="steps down the ladder"
    ) as caught:
        model.create_context(fit=True)
    assert len(caught.value.account.steps) >= 5
    assert not model.disposed


def test_a_load_has_nothing_to_give_without_a_gpu(script, llama):
    """A model on a CPU is loaded as it is, or not: no step changes that."""
    fail(script, "load", 1)
    with pytest.raises(InsufficientMemoryError, match=r"^scripted failure"):
        llama.load_model(fit=True)


def test_other_failures_are_no_lack_of_memory(script, llama):
    """A file that is no model is an error at once."""
    script.fail("load", error=ModelLoadError(None, "damaged"))
    with pytest.raises(ModelLoadError, match="damaged"):
        llama.load_model(fit=True)


def test_idle_ones_make_room_for_a_load(script, llama):
    """A step of one's own, such as to evict, is tried at a load, too."""
    asked = []
    fail(script, "load", 1)
    with llama.load_model(
        fit=[EvictIdle(lambda size: asked.append(size) or 7)]
    ) as model:
        assert [0] == asked
        assert ["evict idle gained 7 B"] == [s.sentence for s in model.fitted.steps]


def test_a_range_takes_what_the_budget_has(script):
    """A range of sizes comes to the largest that the budget has room for."""
    with (
        llmcore.get_llama(null_backend(script), budget=5_000_000) as llama,
        llama.load_model() as model,
    ):
        with model.create_context(context_size=(256, 100_000)) as context:
            assert 256 <= context.params.context_size <= 2048
        with pytest.raises(InsufficientMemoryError):
            model.create_context(context_size=(10**6, 10**6))
