"""With ``restart="replay"`` an engine may die and nobody has to notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcore
from llmcore import ChatSession
from llmcore.errors import (
    BackendCrashedError,
    BackendError,
    DecodeError,
    ModelLoadError,
)
from llmcore.values import Capability

from .conftest import Engine, llama_of, pid_of

BAD = [ord("!")]
PROMPT = [ord(letter) for letter in "Once upon a time"]

Make = Callable[..., llmcore.Sequence]


def kill(sequence: llmcore.Sequence) -> None:
    os.kill(pid_of(sequence), signal.SIGKILL)


@pytest.fixture
def subject(sequence: Make) -> llmcore.Sequence:
    return sequence(restart="replay", params={"sequences": 3})


def answer(sequence: llmcore.Sequence, **options: object) -> list[int]:
    """The greedy answer of an empty sequence."""
    sequence.clear()
    found: list[int] = sequence.generate(PROMPT, max_tokens=20, **options).result.tokens
    return found


@pytest.mark.parametrize("moment", [1, 2, 9])
def test_generation(subject: llmcore.Sequence, moment: int) -> None:
    """An answer that is cut by kill -9 goes on as if nothing had happened."""
    undisturbed = answer(subject)
    subject.clear()
    stream = subject.generate(PROMPT, max_tokens=20)
    for number, _ in enumerate(stream, start=1):
        if number == moment:
            kill(subject)

    assert stream.result.tokens == undisturbed


def test_penalties(subject: llmcore.Sequence) -> None:
    """So does one whose penalties count what was said before the end."""
    options = {"repeat_penalty": 1.5, "frequency_penalty": 5.0}
    undisturbed = answer(subject, **options)
    subject.clear()
    stream = subject.generate(PROMPT, max_tokens=20, **options)
    for number, _ in enumerate(stream, start=1):
        if number == 6:
            kill(subject)

    assert stream.result.tokens == undisturbed


def test_random(subject: llmcore.Sequence) -> None:
    """An answer that is drawn at random goes on as well."""
    stream = subject.generate(PROMPT, max_tokens=20, temperature=1.0, ignore_eos=True)
    next(stream)
    kill(subject)

    assert len(stream.result.tokens) == 20


def test_seed(subject: llmcore.Sequence) -> None:
    """With a seed the random numbers are those of core, and none is lost."""
    options = {"temperature": 1.0, "seed": 7, "ignore_eos": True}
    undisturbed = answer(subject, **options)
    subject.clear()
    stream = subject.generate(PROMPT, max_tokens=20, **options)
    next(stream)
    kill(subject)

    assert stream.result.tokens == undisturbed


def test_chat(subject: llmcore.Sequence) -> None:
    """A chat goes on after its engine died between two turns."""
    questions = "Who are you?", "And why?"
    with subject.context.get_sequence() as other, ChatSession(other) as chat:
        undisturbed = [chat.prompt(text, max_tokens=8) for text in questions]
    with ChatSession(subject) as chat:
        first = chat.prompt(questions[0], max_tokens=8)
        kill(subject)
        second = chat.prompt(questions[1], max_tokens=8)

    assert [first, second] == undisturbed


def test_neighbours(subject: llmcore.Sequence) -> None:
    """What the other sequences hold is there again too."""
    with subject.context.get_sequence() as other:
        other.evaluate(PROMPT)
        expected = answer(subject)
        kill(subject)

        assert other.generate(PROMPT, max_tokens=20).result.tokens == expected


def test_state(subject: llmcore.Sequence, sequence: Make, tmp_path: Path) -> None:
    """So is what was loaded from a file."""
    save_elsewhere(sequence, tmp_path / "state")
    subject.load(tmp_path / "state")
    kill(subject)

    loaded = subject.generate(PROMPT, max_tokens=20).result.tokens
    assert loaded == answer(subject)


def test_lost_state(sequence: Make, tmp_path: Path) -> None:
    """What the next process refuses is empty there, and core evaluates it again."""
    subject = sequence("states_after_clear", restart="replay")
    expected = answer(subject)
    save_elsewhere(sequence, tmp_path / "state")
    subject.load(tmp_path / "state")
    kill(subject)

    assert subject.generate(PROMPT, max_tokens=20).result.tokens == expected


def save_elsewhere(sequence: Make, path: Path) -> None:
    """A state whose tokens are news to another engine."""
    other = sequence()
    other.evaluate(PROMPT)
    other.save(path)


def test_logits(subject: llmcore.Sequence) -> None:
    """Outputs of the last evaluation can still be read."""
    subject.evaluate(PROMPT)
    expected = subject.logits.tolist()
    subject.clear()
    subject.evaluate(PROMPT)
    kill(subject)

    assert subject.logits.tolist() == expected


def test_model(subject: llmcore.Sequence) -> None:
    """The model is loaded again when it is next needed."""
    kill(subject)

    assert subject.context.model.tokenize("a") == [97]


def test_two_models(subject: llmcore.Sequence) -> None:
    """Each model and each context comes back when it is next used."""
    expected = answer(subject)
    with llama_of(subject).load_model() as model:
        context = model.create_context(context_size=64)
        with context, context.get_sequence() as other:
            kill(subject)
            assert answer(other) == expected
    assert answer(subject) == expected


def test_new_objects(subject: llmcore.Sequence) -> None:
    """What is made after a death is made in the next process."""
    llama = llama_of(subject)
    kill(subject)
    with llama.load_model() as model:
        kill(subject)
        context = model.create_context(context_size=64)
        with context, context.get_sequence() as other:
            assert answer(other)


# -- what must not be tried for ever ---------------------------------------------------


def test_poison(sequence: Make) -> None:
    """A prompt that kills the engine twice fails alone; its neighbour goes on."""
    bad = sequence("segfault", restart="replay", params={"sequences": 2})
    good = bad.context.get_sequence()
    expected = answer(good)
    good.clear()
    stream = good.generate(PROMPT, max_tokens=20)
    next(stream)

    with pytest.raises(DecodeError, match="SIGSEGV"):
        bad.evaluate(BAD)

    assert stream.result.tokens == expected


def test_hang(sequence: Make) -> None:
    """A call that hangs is tried once more, and then fails."""
    subject = sequence("hang", restart="replay", watchdog=0.5)

    with pytest.raises(DecodeError, match="gave no answer to 'decode'"):
        subject.evaluate(BAD)
    assert answer(subject)


def test_load(sequence: Make, tmp_path: Path) -> None:
    """A model file that kills the engine is an error of that load alone."""
    subject = sequence("die_in_load", restart="replay")
    file = tmp_path / "model"
    file.touch()

    with pytest.raises(ModelLoadError, match="SIGABRT") as caught:
        llama_of(subject).load_model(file)

    assert caught.value.path == str(file)
    assert answer(subject)


def test_crash_loop(sequence: Make) -> None:
    """An engine that keeps dying is not started for ever."""
    subject = sequence("die_in_sample", restart="replay")

    def until_it_stays_dead() -> None:
        while True:
            with pytest.raises(BackendError) as caught:
                _ = subject.generate(PROMPT, max_tokens=1).result
            if isinstance(caught.value, BackendCrashedError):
                raise caught.value

    with pytest.raises(
        BackendCrashedError, match="6 times within 60 s and is not start"
    ):
        until_it_stays_dead()


def test_never(sequence: Make) -> None:
    """Without it nothing is started again."""
    subject = sequence()
    kill(subject)
    for _ in range(2):
        with pytest.raises((BackendCrashedError, llmcore.errors.BrokenError)):
            subject.evaluate(PROMPT)


def test_closed(engine: Engine) -> None:
    """A closed backend starts no process."""
    backend = engine(restart="replay")
    backend.close()

    with pytest.raises(BackendCrashedError, match="was closed"):
        backend.devices()


def test_capabilities(engine: Engine) -> None:
    """Where there are logits the isolated engine can sample, by core's own sampler."""
    info = engine("sampling_by_core").info

    assert Capability.NATIVE_SAMPLING in info.capabilities
