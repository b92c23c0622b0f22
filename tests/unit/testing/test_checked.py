"""A checked backend under core, as the tests of a program use it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import llmcore
from llmcore.backends.null.backend import NullBackend
from llmcore.backends.null.context import NullContext
from llmcore.errors import BackendError
from llmcore.testing import ContractError, NullScript, checked, null_backend


def test_an_obedient_backend() -> None:
    """Whatever core does with an obedient engine keeps the contract."""
    engine = checked(null_backend(NullScript(answer="Paris.")))
    with llmcore.get_llama(engine) as llama:
        context = llama.load_model().create_context(context_size=128, sequences=2)
        chat = llmcore.ChatSession(context.get_sequence())
        assert chat.prompt("What is the capital of France?") == "Paris."
        assert chat.prompt("Sure?", temperature=0.8, seed=1)

    assert (engine.violations, engine.live) == ([], {})


def test_seen_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose engine lies gets the very error."""
    engine = checked(null_backend())
    wrong = np.full(268, np.nan, np.float32)
    monkeypatch.setattr(NullContext, "logits", lambda self, row: wrong)
    with llmcore.get_llama(engine) as llama:
        context = llama.load_model().create_context(context_size=128)
        with pytest.raises(ContractError) as caught:
            context.get_sequence().evaluate([1, 2])

    assert engine.violations == [caught.value]


def test_kept_where_core_recovers() -> None:
    """What core recovers from is still known at the end."""
    engine = checked(null_backend(script := NullScript()))
    with llmcore.get_llama(engine) as llama:
        context = llama.load_model().create_context(context_size=128, sequences=2)
        sequences = context.get_sequence(), context.get_sequence()
        script.fail("decode", nth=3, error=ZeroDivisionError)  # of both at once
        with script.gate("decode") as gate:
            streams = [s.generate([1, 2, 3], max_tokens=8) for s in sequences]
            gate.wait_entered()
        assert [len(stream.result.tokens) for stream in streams] == [8, 8]

    assert [error.method for error in engine.violations] == ["BackendContext.decode"]


def test_by_name() -> None:
    """An installed backend is checked by its name, with what its plugin declares."""
    with llmcore.get_llama(checked("null")) as llama:
        assert llama.backend.name == "null"


def test_undeclared_object() -> None:
    """A backend object that does not say what it declares is asked to."""

    class Silent(NullBackend):
        info = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="second argument"):
        checked(Silent())


def test_error_travels() -> None:
    """The error can be sent to another process."""
    error = ContractError("core", "Backend.close", "`close` comes once", "twice")
    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.party, copy.seen) == (str(error), "core", "twice")
    assert isinstance(error, AssertionError)
    assert not isinstance(error, BackendError)
