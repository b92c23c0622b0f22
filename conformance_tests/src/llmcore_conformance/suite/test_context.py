"""Contexts: context.md."""

from __future__ import annotations

from typing import Any

import pytest

from llmcore import Context, Llama, Model, Sequence
from llmcore.errors import (
    BusyError,
    ContextCreationError,
    ContextOverflowError,
    InsufficientMemoryError,
)
from llmcore_conformance import clause
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, FreshAnswers, answer, endless


@clause("context.size")
@pytest.mark.parametrize("asked", [64, 300])
def test_a_sequence_holds_what_was_asked_for(
    model: Model, prompt_tokens: list[int], asked: int
) -> None:
    """The size that is reported is that asked for or more, and it can be filled."""
    context = model.create_context(context_size=asked, threads=1)
    sequence = context.get_sequence()
    given = context.params.context_size
    assert isinstance(given, int), "context_size must be a number once it is given"
    assert given >= asked, f"asked for {asked} tokens, given {given}"
    assert sequence.size == given
    sequence.evaluate([prompt_tokens[-1]] * asked)
    assert len(sequence.tokens) == asked


@clause("context.parameters")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_size", 0),
        ("context_size", 2**40),
        ("sequences", 0),
        ("batch_size", 0),
        ("micro_batch_size", -1),
        ("threads", 0),
        ("kv_type_k", "f9"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(
    model: Model, ledger: SeamLedger, field: str, value: Any
) -> None:
    """The error is a ValueError that names the field; nothing native was called."""
    with pytest.raises(ValueError, match=field):
        model.create_context(**{field: value})
    assert ledger.order("create_context") == [], "the backend was asked all the same"


@clause("context.overflow")
def test_a_prompt_that_does_not_fit_is_refused(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The error has both numbers; the sequence holds what it held and goes on."""
    sequence.evaluate(prompt_tokens[:3])
    needed = sequence.size + 1
    with pytest.raises(ContextOverflowError) as caught:
        answer(sequence, [prompt_tokens[0]] * needed)
    assert (caught.value.needed, caught.value.available) == (needed, sequence.size)
    assert sequence.tokens == prompt_tokens[:3]
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("context.overflow")
def test_an_input_that_does_not_fit_is_refused(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The error counts what the sequence holds already, which it still holds."""
    sequence.evaluate(prompt_tokens[:3])
    with pytest.raises(ContextOverflowError) as caught:
        sequence.evaluate([prompt_tokens[0]] * (sequence.size - 2))
    expected = (sequence.size + 1, sequence.size)
    assert (caught.value.needed, caught.value.available) == expected
    assert sequence.tokens == prompt_tokens[:3]
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("context.failed-creation")
@pytest.mark.parametrize("error", [ContextCreationError, InsufficientMemoryError])
def test_a_failed_creation_leaves_nothing(
    llama: Llama,
    model: Model,
    ledger: SeamLedger,
    prompt_tokens: list[int],
    as_new: FreshAnswers,
    error: type[Exception],
) -> None:
    """The same resources live as before, and the model makes the next context."""
    before, native = llama.resources(), ledger.live
    ledger.fail("create_context", error)
    with pytest.raises(error):
        model.create_context(context_size=SIZE, threads=1)
    assert llama.resources() == before, "something of the failed creation is held"
    assert ledger.live == native
    sequence = model.create_context(context_size=SIZE, threads=1).get_sequence()
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("context.independent")
def test_contexts_of_one_model_do_not_disturb_each_other(
    model: Model,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """An answer is the same though another context works and goes meanwhile."""
    first = model.create_context(context_size=SIZE, threads=1)
    second = model.create_context(context_size=SIZE, threads=1)
    sequence = first.get_sequence()
    stream = sequence.generate(prompt_tokens, endless(model), max_tokens=32)
    next(stream)
    answer(second.get_sequence(), other_tokens)
    second.dispose()
    assert stream.result.tokens[:16] == as_new(prompt_tokens, 16)


@clause("context.memory")
def test_memory_info_adds_up(wide_context: Context, prompt_tokens: list[int]) -> None:
    """It counts the tokens of all sequences; weights and cache are in the total."""
    sequences = [
        wide_context.get_sequence() for _ in range(wide_context.sequences_left)
    ]
    for sequence in sequences:
        sequence.evaluate(prompt_tokens)
    info = wide_context.memory_info()
    assert info.token_count == sum(len(sequence.tokens) for sequence in sequences)
    assert info.context_size == sum(sequence.size for sequence in sequences)
    assert min(info.model_size, info.kv_cache_size, info.compute_size) >= 0
    assert info.total_allocated >= info.model_size + info.kv_cache_size


@clause("context.clear")
def test_clear_empties_every_sequence(
    wide_context: Context, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """All sequences are empty afterwards and answer as new."""
    sequences = [
        wide_context.get_sequence() for _ in range(wide_context.sequences_left)
    ]
    for sequence in sequences:
        sequence.evaluate(prompt_tokens[2:])
    wide_context.clear()
    assert [sequence.tokens for sequence in sequences] == [[] for _ in sequences]
    for sequence in sequences:
        assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("context.clear-busy")
def test_clear_refuses_while_a_sequence_is_used(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """A stream goes on as if clear() had not been called."""
    model = sequence.context.model
    stream = sequence.generate(prompt_tokens, endless(model), max_tokens=32)
    next(stream)
    with pytest.raises(BusyError):
        sequence.context.clear()
    assert stream.result.tokens[:16] == as_new(prompt_tokens, 16)
