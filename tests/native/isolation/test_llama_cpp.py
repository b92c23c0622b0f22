"""llama.cpp in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import llmcore
from llmcore import ChatSession
from llmcore.errors import BackendCrashedError, OperationCancelledError
from llmcore.isolation import isolated
from llmcore.plugins import registry

PROMPT = "The capital of France is"
TOKENS = 24

Open = Callable[..., llmcore.Model]


@pytest.fixture
def open_model(smollm2: Path) -> Iterator[Open]:
    """``open_model(restart="replay")``: the model in a child; without, in process."""
    models: list[llmcore.Model] = []  # nothing is forgotten before the end

    def load(restart: str = "") -> llmcore.Model:
        if restart:
            info = registry().get("llama_cpp").info
            backend = isolated(info, restart=restart)  # type: ignore[arg-type]
            llama = llmcore.get_llama(backend)
        else:
            llama = llmcore.get_llama("llama_cpp")
        llamas.enter_context(llama)
        models.append(llama.load_model(smollm2))
        return models[-1]

    with ExitStack() as llamas:
        yield load


@contextmanager
def open_sequence(model: llmcore.Model, size: int = 128) -> Iterator[llmcore.Sequence]:
    context = model.create_context(context_size=size, threads=1)
    with context, context.get_sequence() as sequence:
        yield sequence


def answer(model: llmcore.Model, kill_after: int = 0) -> list[int]:
    """A greedy answer; its engine may be killed after some tokens."""
    prompt = model.tokenize(PROMPT, add_bos=model.info.add_bos)
    with open_sequence(model) as sequence:
        stream = sequence.generate(prompt, max_tokens=TOKENS, ignore_eos=True)
        for number, _ in enumerate(stream, start=1):
            if number == kill_after:
                os.kill(pid(model), signal.SIGKILL)
        return list(stream.result.tokens)


def pid(model: llmcore.Model) -> int:
    parent = model._parent
    assert parent is not None
    found: int = parent._node.handle.pid
    return found


def test_same_tokens(open_model: Open) -> None:
    """A child answers what this process answers."""
    assert answer(open_model("never")) == answer(open_model())


def test_same_logits(open_model: Open) -> None:
    """The logits are the same, number for number."""
    seen = []
    for model in (open_model(), open_model("never")):
        with open_sequence(model) as sequence:
            sequence.evaluate(model.tokenize(PROMPT))
            seen.append(np.array(sequence.logits))

    assert np.array_equal(*seen)


def test_same_facts(open_model: Open) -> None:
    """The child tells the same of its model."""
    assert open_model("never").info == open_model().info


@pytest.mark.parametrize("moment", [1, TOKENS // 2])
def test_killed(open_model: Open, moment: int) -> None:
    """An answer goes on after kill -9 as if nothing had happened."""
    model = open_model("replay")

    assert answer(model, kill_after=moment) == answer(model)


def test_chat(open_model: Open) -> None:
    """A chat goes on after its engine died between two turns."""
    model = open_model("replay")
    said = []
    for kill in (False, True):
        with open_sequence(model, 256) as sequence, ChatSession(sequence) as chat:
            chat.prompt("What is the capital of France?", max_tokens=8)
            if kill:
                os.kill(pid(model), signal.SIGKILL)
            said.append(chat.prompt("And of Italy?", max_tokens=8))

    assert said[0] == said[1]


def test_state(open_model: Open, tmp_path: Path) -> None:
    """A state that a child saved is one that this process reads."""
    tokens = []
    for model in (open_model("never"), open_model()):
        with open_sequence(model) as sequence:
            if not tokens:
                sequence.evaluate(model.tokenize(PROMPT))
                sequence.save(tmp_path / "state")
            else:
                sequence.load(tmp_path / "state")
            stream = sequence.generate(sequence.tokens, max_tokens=8)
            tokens.append(stream.result.tokens)

    assert tokens[0] == tokens[1]


def test_cancelled_load(smollm2: Path) -> None:
    """A load in a child tells its progress and can be cancelled."""
    told: list[float] = []

    def progress(share: float) -> bool:
        told.append(share)
        return share < 0.3

    info = registry().get("llama_cpp").info
    cancelled = pytest.raises(OperationCancelledError)
    with llmcore.get_llama(isolated(info)) as llama, cancelled:
        llama.load_model(smollm2, progress=progress)

    assert told == sorted(told)
    assert 0.3 <= told[-1] < 1


def test_crash(open_model: Open) -> None:
    """Without replay a dead engine is an error, with what it said last."""
    model = open_model("never")
    os.kill(pid(model), signal.SIGKILL)

    with pytest.raises(BackendCrashedError, match="llama_cpp engine was killed by SIG"):
        model.tokenize(PROMPT)
