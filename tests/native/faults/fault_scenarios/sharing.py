"""
Several users at once.
"""

from __future__ import annotations

import threading

from fault_scenarios.kit import (
    answer,
    error_of,
    make_context,
    make_model,
    prompt_tokens,
    together,
)
from fault_scenarios.table import scenario
from llmcore import ChatSession

STORIES = ("Once upon a time", "The capital of France", "In the year 1969", "My cat")


@scenario(
    r"1 answer, 3 times SequenceBusyError: sequence#\d+ is in use", real_model=True
)
def four_threads_use_one_sequence() -> None:
    """One of them has it, the others are told so."""
    sequence = make_context().get_sequence()
    alone = answer(sequence)
    tokens = prompt_tokens(sequence.context.model)
    asked = threading.Barrier(4)

    def use() -> str:
        try:
            stream = sequence.generate(tokens, max_tokens=16)
        finally:
            asked.wait(30)
        return stream.result.text

    told = together([use] * 4)
    errors = [text for text in told if text.startswith("SequenceBusyError")]
    assert told.count(alone) == 1, told
    assert answer(sequence) == alone
    print(f"{told.count(alone)} answer, {len(errors)} times {errors[0]}")


@scenario("4 right answers", real_model=True)
def four_threads_use_one_context() -> None:
    """Each has its own sequence, and gets the answer it would get alone."""
    alone = [answer(make_context().get_sequence(), story) for story in STORIES]
    context = make_context(sequences=4)
    sequences = [context.get_sequence() for _ in STORIES]

    told = together(
        [
            lambda s=s, t=t: answer(s, t)  # type: ignore[misc]
            for s, t in zip(sequences, STORIES, strict=True)
        ]
    )

    assert told == alone, (told, alone)
    print("4 right answers")


@scenario("4 threads, 80 right answers")
def four_threads_use_one_model() -> None:
    """They make and dispose contexts, and read the vocabulary, all at once."""
    model = make_model()
    with model.create_context(context_size=128) as context:
        alone = answer(context.get_sequence())

    def use() -> int:
        right = 0
        for _ in range(20):
            assert model.detokenize(model.tokenize("hello")) == "hello"
            with model.create_context(context_size=128) as context:
                right += answer(context.get_sequence()) == alone
        return right

    assert together([use] * 4) == ["20"] * 4
    print("4 threads, 80 right answers")


@scenario("SequenceBusyError: sequence#.*then two right answers", real_model=True)
def two_chats_on_one_sequence_at_once() -> None:
    """The second is told to wait; nobody's answer is garbled."""
    words = ("Say hello.", "What is 2 + 2?")
    alone = [
        ChatSession(make_context().get_sequence()).prompt(text, max_tokens=16)
        for text in words
    ]
    sequence = make_context().get_sequence()
    one, two = ChatSession(sequence), ChatSession(sequence)

    stream = one.stream(words[0], max_tokens=16)
    beginning = next(stream).text
    message = error_of(lambda: two.prompt(words[1], max_tokens=16))
    first = beginning + "".join(event.text for event in stream)
    second = two.prompt(words[1], max_tokens=16)

    assert [first, second] == alone, (first, second, alone)
    print(f"{message}; then two right answers")


@scenario("BusyError: another thread")
def two_threads_read_one_stream() -> None:
    """A stream has one reader at a time; no piece is lost or doubled."""
    sequence = make_context().get_sequence()
    alone = answer(sequence, max_tokens=200)
    stream = sequence.generate(prompt_tokens(sequence.context.model), max_tokens=200)
    pieces: list[str] = []
    errors: list[str] = []

    def read() -> None:
        while True:
            try:
                for event in stream:
                    pieces.append(event.text)
                return
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    together([read] * 4)
    assert stream.result.text == alone
    assert sorted("".join(pieces)) == sorted(alone)
    print(errors[0] if errors else "BusyError: another thread was never met")
