"""
What the scenarios share.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import llmcore
from llmcore import ChatSession, Context, Llama, Model, Sequence

PROMPT = "Once upon a time there was a little"


def model_path() -> str:
    """The model file that this process was given."""
    return sys.argv[2]


class Stack(NamedTuple):
    """One object of each level."""

    llama: Llama
    model: Model
    context: Context
    sequence: Sequence
    chat: ChatSession


def make_model() -> Model:
    """A model on a new instance of the engine."""
    return llmcore.get_llama("llama_cpp").load_model(model_path())


def make_context(*, sequences: int = 1, context_size: int = 512) -> Context:
    """A context on a new model."""
    return make_model().create_context(context_size=context_size, sequences=sequences)


def make_stack() -> Stack:
    """A whole new stack."""
    context = make_context()
    sequence = context.get_sequence()
    model = context.model
    chat = ChatSession(sequence)
    return Stack(llama_of(model), model, context, sequence, chat)


def llama_of(model: Model) -> Llama:
    """The instance that a model was loaded on."""
    llama = model._parent
    assert isinstance(llama, Llama)
    return llama


def prompt_tokens(model: Model, text: str = PROMPT) -> list[int]:
    """A prompt that makes a model write for long."""
    return model.tokenize(text, add_bos=model.info.add_bos)


def answer(sequence: Sequence, text: str = PROMPT, max_tokens: int = 16) -> str:
    """A greedy answer: the same whenever nothing disturbs it."""
    tokens = prompt_tokens(sequence.context.model, text)
    return sequence.generate(tokens, max_tokens=max_tokens).result.text


def error_of(call: Callable[[], object]) -> str:
    """The name and the words of what a call raises."""
    try:
        result = call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"nothing was raised, the result is {result!r}")


class InThread:
    """A call in a daemon thread, and what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Wait for the end; raises what the call raised."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def together(calls: Iterable[Callable[[], object]]) -> list[str]:
    """Run calls at once, each in a thread: the text or the error of each."""
    calls = list(calls)
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> str:
        barrier.wait()
        try:
            return str(call())
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return [
        t.result()
        for t in [InThread(lambda call=c: run(call)) for c in calls]  # type: ignore[misc]
    ]


class Writer(InThread):
    """A thread that generates until it is stopped; it is at work when this returns."""

    def __init__(self, sequence: Sequence) -> None:
        self._started = threading.Event()
        self._sequence = sequence
        super().__init__(self._write)
        assert self._started.wait(30), "generation does not begin"

    def _write(self) -> None:
        tokens = prompt_tokens(self._sequence.context.model)
        while True:  # a small context is soon full
            for _ in self._sequence.generate(tokens):
                self._started.set()
