"""`LLM`: when its context is kept, when it grows, and what `close` does."""

from __future__ import annotations

import pytest

import llmcore
from llmcore.errors import DisposedError, LlmcoreError, SequenceBusyError
from llmcore.testing import NullScript, null_backend


@pytest.fixture(name="backend")
def _backend():
    backend = null_backend(NullScript())
    yield backend
    assert backend.ledger.violations == []
    assert backend.ledger.live == {}


@pytest.fixture(name="llm")
def _llm(backend):
    with llmcore.LLM(backend=backend) as llm:
        yield llm


def contexts(backend):
    return backend.ledger.calls["create_context"]


def test_the_first_call_makes_the_context(llm, backend):
    """Nothing but the model is made before the first call."""
    assert 0 == contexts(backend)
    assert llm("hello", max_tokens=10)
    assert 1 == contexts(backend)


def test_many_calls_that_fit_make_one_context(llm, backend):
    """Calls of the same size reuse one context, and so do smaller ones."""
    for size in (10, 10, 5, 10):
        llm("hello", max_tokens=size)
    assert 1 == contexts(backend)


def test_calls_cannot_see_each_other(llm):
    """The same call gives the same answer whatever was said in between."""
    first = llm("hello", max_tokens=10)
    llm("my secret is 42", max_tokens=5)
    assert first == llm("hello", max_tokens=10)


def test_a_larger_call_makes_a_larger_context(llm, backend):
    """The context grows when a call needs more, and keeps its size afterwards."""
    llm("hello", max_tokens=10)
    llm("hello", max_tokens=100)
    size = llm.context.params.context_size
    llm("hello", max_tokens=10)
    assert 2 == contexts(backend)
    assert size == llm.context.params.context_size
    assert 1 == backend.ledger.live["context"]


def test_context_size_sets_the_size(llm):
    """``context_size`` is the size of the context instead of prompt and answer."""
    llm("hello", max_tokens=10, context_size=200)
    assert 200 == llm.context.params.context_size


def test_reset_context_makes_a_new_one(llm, backend):
    """After `reset_context` the next call starts with a new context."""
    llm("hello", max_tokens=10)
    llm.reset_context()
    llm("hello", max_tokens=10)
    assert 2 == contexts(backend)


def test_close_frees_the_context_and_keeps_the_model(llm, backend):
    """After `close` only the model is left, and calling works again."""
    first = llm("hello", max_tokens=10)
    llm.close()
    llm.close()
    assert {"backend": 1, "model": 1} == backend.ledger.live
    assert first == llm("hello", max_tokens=10)


def test_dispose_is_final(llm):
    """A disposed LLM cannot be called; closing it does nothing."""
    llm.dispose()
    llm.close()
    with pytest.raises(DisposedError, match="llm#"):
        llm("hello")


def test_a_second_call_during_a_stream_is_refused(llm):
    """While a stream runs, another call is refused and the stream goes on."""
    stream = llm.stream("hello", max_tokens=10)
    next(stream)
    with pytest.raises(SequenceBusyError):
        llm("hello", max_tokens=1000)
    assert 10 == len(stream.result.tokens)


def test_a_changed_parameter_makes_a_new_context(backend):
    """Every context parameter counts, not only the size."""
    with llmcore.LLM(backend=backend) as llm:
        llm("hello", max_tokens=10)
        llm.context_params = llmcore.ContextParams(batch_size=7)
        llm("hello", max_tokens=10)
        assert 2 == contexts(backend)
        assert 7 == llm.context.params.batch_size


def test_a_failed_load_leaves_nothing(backend):
    """If the model cannot be loaded everything made so far is gone."""
    backend.script.fail("load")
    with pytest.raises(llmcore.errors.ModelLoadError):
        llmcore.LLM(backend=backend)


@pytest.mark.parametrize("bad", [{"max_tokens": 0}, {"context_size": 1}])
def test_a_bad_configuration_is_a_value_error(llm, bad):
    """A value out of range names the field."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        llm("hello", **bad)


def test_an_unknown_field_is_a_type_error(llm):
    """A misspelt option lists what there is."""
    with pytest.raises(TypeError, match="no field 'max_token': it has max_tokens"):
        llm("hello", max_token=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "cud"}, "gpu must be one of 'auto', 'cuda'"),
        ({"gpu": "cuda"}, "finds no cuda device"),
        ({"gpu": False, "gpu_layers": 3}, "gpu_layers=3 but"),
        ({"isolation": "process"}, "cannot be isolated"),
        ({"restart": "replay"}, "needs isolation='process'"),
    ],
)
def test_the_engine_is_chosen_as_by_get_llama(options, message):
    """``gpu``, ``isolation`` and ``restart`` are those of `get_llama`."""
    with pytest.raises((ValueError, LlmcoreError), match=message):
        llmcore.LLM(backend=null_backend(), **options)
