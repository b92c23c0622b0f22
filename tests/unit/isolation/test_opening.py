"""`get_llama` with an engine in a process of its own."""

from __future__ import annotations

import os

import pytest

import llmcore
from llmcore.testing import null_backend


def test_a_named_engine_runs_in_a_child() -> None:
    """``isolation="process"`` is all that it takes; the answer is the same."""
    answers = []
    for isolation in (None, "process"):
        with llmcore.get_llama("null", isolation=isolation) as llama:
            model = llama.load_model()
            sequence = model.create_context(context_size=64).get_sequence()
            prompt = model.tokenize("a prompt")
            answers.append(sequence.generate(prompt, max_tokens=8).result.text)
            if isolation is not None:
                with llama._use() as backend:
                    assert os.getpid() != backend.pid
    assert answers[0] == answers[1]


def test_a_whole_llm_outlives_its_engine() -> None:
    """An `LLM` whose engine is killed goes on with another one, if it may."""
    with llmcore.LLM(backend="null", isolation="process", restart="replay") as llm:
        before = llm("a prompt", max_tokens=8)
        with llm.model._parent._use() as backend:
            os.kill(backend.pid, 9)
        assert llm("a prompt", max_tokens=8) == before


def test_an_object_cannot_be_isolated() -> None:
    """A backend object lives here already; the message says what to do instead."""
    with pytest.raises(ValueError, match="give the name of an installed one"):
        llmcore.get_llama(null_backend(), isolation="process")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolation": "thread"}, "isolation must be 'process' or None"),
        ({"restart": "replay"}, "needs isolation='process'"),
        ({"isolation": "process", "restart": "always"}, "restart must be"),
        ({"isolation": "process", "watchdog": 0.0}, "watchdog must be above 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], message: str) -> None:
    """They are refused before anything is started."""
    with pytest.raises(ValueError, match=message):
        llmcore.get_llama("null", **options)
