"""Sequences: sequence.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmcore import Context, Model, Sequence
from llmcore.errors import (
    DecodeError,
    DisposedError,
    NoSequenceLeftError,
    SequenceBusyError,
)
from llmcore.testing import ViolationKind
from llmcore.values import Capability
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_none
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, FreshAnswers, answer, endless

pytest_plugins = ["llmcore_conformance.kinds"]


@clause("seq.limit")
def test_no_more_sequences_than_asked_for(
    wide_context: Context, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """One more is refused, and a sequence at work does not notice."""
    assert wide_context.sequences_left == wide_context.params.sequences
    taken = [wide_context.get_sequence() for _ in range(wide_context.sequences_left)]
    params = endless(wide_context.model)
    stream = taken[0].generate(prompt_tokens, params, max_tokens=8)
    next(stream)
    assert wide_context.sequences_left == 0
    with pytest.raises(NoSequenceLeftError):
        wide_context.get_sequence()
    assert stream.result.tokens[:8] == as_new(prompt_tokens)


@clause("seq.isolation")
def test_a_neighbour_changes_nothing(
    wide_context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """An answer is the same though another sequence works meanwhile."""
    first, second = wide_context.get_sequence(), wide_context.get_sequence()
    params = endless(wide_context.model)
    stream = second.generate(prompt_tokens, params, max_tokens=32)
    next(stream)
    answer(first, other_tokens)
    assert stream.result.tokens == as_new(prompt_tokens, 32)


@clause("seq.reuse")
def test_a_place_taken_again_is_clean(
    context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """The next sequence in a place is empty and answers as new."""
    with context.get_sequence() as former:
        answer(former, other_tokens)
    sequence = context.get_sequence()
    assert sequence.tokens == [], "the place has leftovers of its last owner"
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("seq.stale")
def test_an_old_handle_cannot_touch_the_new_owner(
    context: Context, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """Using, closing and disposing what is old leaves the new stream alone."""
    params = endless(context.model)
    old = context.get_sequence()
    old_stream = old.generate(prompt_tokens, params, max_tokens=8)
    next(old_stream)
    old.dispose()
    new = context.get_sequence()
    stream = new.generate(prompt_tokens, params, max_tokens=8)
    next(stream)
    with pytest.raises(DisposedError):
        old.evaluate(prompt_tokens)
    old_stream.close()
    old.dispose()
    with pytest.raises(SequenceBusyError):
        new.evaluate(prompt_tokens)
    assert stream.result.tokens[:8] == as_new(prompt_tokens)


@clause("seq.truth")
def test_tokens_and_position_follow_the_cache(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """After each operation they say what was evaluated and what was kept of it."""

    def check(expected: list[int]) -> None:
        assert sequence.tokens == expected
        assert sequence.position == len(expected)

    check([])
    sequence.evaluate(prompt_tokens)
    check(prompt_tokens)
    sequence.truncate(len(prompt_tokens) - 2)
    kept = len(sequence.tokens)
    check(prompt_tokens[:kept])
    sequence.evaluate(prompt_tokens[kept:])
    check(prompt_tokens)
    drawn = answer(sequence, prompt_tokens, 4)
    held = len(sequence.tokens)
    assert held >= len(prompt_tokens) + len(drawn) - 1
    check([*prompt_tokens, *drawn][:held])
    sequence.clear()
    check([])
    assert_none(
        ledger,
        ViolationKind.POSITIONS,
        cause="the token list and the engine's cache went apart",
    )


@clause("seq.long-input")
def test_an_input_of_several_batches_is_one_input(
    model: Model,
    prompt_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """The answer to a long prompt is the same in small batches."""
    context = model.create_context(
        context_size=SIZE, batch_size=8, micro_batch_size=8, threads=1
    )
    size = context.params.batch_size
    prompt = (prompt_tokens * size)[: 2 * size + 3]
    assert answer(context.get_sequence(), prompt) == as_new(prompt)
    assert_none(
        ledger,
        ViolationKind.BATCH_SIZE,
        cause="an input is not cut into batches",
    )


@clause("seq.empty-input")
def test_no_tokens_are_a_fine_input(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """Evaluating none does nothing, on an empty sequence and on another."""
    sequence.evaluate([])
    sequence.evaluate(prompt_tokens)
    sequence.evaluate([])
    assert sequence.tokens == prompt_tokens
    assert len(ledger.order("decode")) == 1, "something was evaluated for no tokens"


@clause("seq.bad-token")
@pytest.mark.parametrize("excess", [None, 0, 2**40])
def test_a_token_that_does_not_exist_is_refused(
    sequence: Sequence,
    prompt_tokens: list[int],
    ledger: SeamLedger,
    excess: int | None,
) -> None:
    """The error is a ValueError with the number, and nothing was evaluated."""
    size = sequence.context.model.info.vocab_size
    bad = -1 if excess is None else size + excess
    for use in (sequence.evaluate, sequence.generate):
        with pytest.raises(ValueError, match=str(bad)):
            use([*prompt_tokens, bad])
    assert ledger.order("decode") == []


@clause("seq.truncate")
def test_the_first_tokens_can_be_kept(
    sequence: Sequence,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """It keeps what it says it kept, all or less, and goes on from there as new."""
    length = len(prompt_tokens) // 2
    sequence.evaluate(prompt_tokens)
    kept = sequence.truncate(length)
    assert 0 <= kept <= length, f"asked to keep {length}, it says {kept}"
    assert sequence.tokens == prompt_tokens[:kept]
    sequence.evaluate(other_tokens)
    expected = [*prompt_tokens[:kept], *other_tokens]
    assert answer(sequence, expected) == as_new(expected)


@clause("seq.fork")
def test_a_fork_is_an_independent_copy(
    wide_context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """Both go on differently from the same tokens, each as if alone."""
    sequence = wide_context.get_sequence()
    sequence.evaluate(prompt_tokens)
    twin = sequence.fork()
    assert twin.tokens == prompt_tokens
    left = [*prompt_tokens, *other_tokens[:3]]
    right = [*prompt_tokens, *other_tokens[3:]]
    assert answer(twin, left) == as_new(left)
    assert answer(sequence, right) == as_new(right)


@clause("seq.prefix-equal")
def test_what_a_sequence_holds_does_not_show_in_an_answer(
    sequence: Sequence,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """Prompts that share all, a half or nothing with the last are answered as new."""
    half = [*prompt_tokens[: len(prompt_tokens) // 2], *other_tokens]
    for prompt in (prompt_tokens, prompt_tokens, half, other_tokens):
        assert answer(sequence, prompt) == as_new(prompt)


@clause("seq.prefix-kept")
def test_only_new_tokens_are_evaluated(
    sequence: Sequence,
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
) -> None:
    """A prompt that goes on from what is held costs only what is new in it."""
    params = endless(sequence.context.model)
    answer(sequence, prompt_tokens, 4)
    held, before = sequence.tokens, len(ledger.events)
    prompt = [*held, *other_tokens[:3]]
    cache = sequence.generate(prompt, params, max_tokens=1).result.cache
    assert (cache.reused, cache.evaluated) == (len(held), 3)
    later = [event.op for event in ledger.events[before:]]
    assert not {"clear", "remove"} & set(later), "a cache that fits was emptied"
    again = sequence.generate(prompt, params, max_tokens=1).result.cache
    assert again.evaluated >= 1, "no logits without an evaluation"
    assert again.reused + again.evaluated == len(prompt)


@clause("seq.failed-decode")
@pytest.mark.parametrize("applied", [0, 2])
def test_a_sequence_works_as_new_after_a_failed_evaluation(
    sequence: Sequence,
    prompt_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
    applied: int,
) -> None:
    """Whether the engine applied a part of the batch or nothing does not show."""
    ledger.fail("decode", DecodeError, applied=applied)
    with pytest.raises(DecodeError):
        answer(sequence, prompt_tokens)
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("seq.failed-neighbour")
def test_a_failing_neighbour_changes_nothing(
    wide_context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """A sequence goes on as if alone after another one failed."""
    failing, sequence = wide_context.get_sequence(), wide_context.get_sequence()
    sequence.evaluate(prompt_tokens[:3])
    ledger.fail("decode", DecodeError)
    with pytest.raises(DecodeError):
        failing.evaluate(other_tokens)
    assert sequence.tokens == prompt_tokens[:3]
    sequence.evaluate(prompt_tokens[3:])
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


# -- going back ------------------------------------------------------------------------


@clause("seq.fork-state")
def test_a_fork_has_random_numbers_of_its_own(
    wide_context: Context, prompt_tokens: list[int]
) -> None:
    """It draws by hand what the original draws after it, from the same place on."""
    model = wide_context.model
    if Capability.LOGITS not in model.capabilities:  # nothing is drawn by hand
        return
    params = endless(model, temperature=2.0, seed=7)

    def draw(sequence: Sequence, count: int) -> list[int]:
        drawn = []
        for _ in range(count):
            drawn.append(sequence.sample(params))
            sequence.evaluate(drawn[-1:])
        return drawn

    sequence = wide_context.get_sequence()
    sequence.evaluate(prompt_tokens)
    draw(sequence, 3)
    twin = sequence.fork()
    assert draw(twin, 8) == draw(sequence, 8)


class Interruption(BaseException):
    """Something that is no `Exception`, as Ctrl-C."""


def _generate(sequence: Sequence) -> None:
    answer(sequence, [*sequence.tokens, *sequence.tokens[:3]], 4)


def _generate_something_else(sequence: Sequence) -> None:
    answer(sequence, sequence.tokens[::-1], 4)


def _truncate_and_go_on(sequence: Sequence) -> None:
    sequence.truncate(len(sequence.tokens) // 2)
    sequence.evaluate(sequence.tokens[:2] or [0])


def _fail_in_a_block_inside(sequence: Sequence) -> None:
    sequence.truncate(len(sequence.tokens) - 1)
    with sequence.transaction():
        sequence.clear()
        raise Interruption


@clause("seq.transaction")
@pytest.mark.parametrize(
    ("work", "error"),
    [
        (Sequence.clear, ValueError),
        (_generate, Interruption),
        (_generate_something_else, ValueError),
        (_truncate_and_go_on, Interruption),
        (_fail_in_a_block_inside, Interruption),
    ],
)
def test_a_block_that_raises_is_undone(
    any_sequence: Sequence,
    any_prompt: list[int],
    any_as_new: FreshAnswers,
    work: Callable[[Sequence], None],
    error: type[BaseException],
) -> None:
    """The tokens are those of before, and are continued as new."""
    held, more = any_prompt[:-4], any_prompt[-4:]
    any_sequence.evaluate(held)
    with pytest.raises(error), any_sequence.transaction():
        work(any_sequence)
        raise error
    assert any_sequence.tokens == held
    any_sequence.evaluate(more[:2])
    assert answer(any_sequence, any_prompt) == any_as_new(any_prompt)


@clause("seq.transaction-ok")
def test_a_block_that_ends_is_kept(
    sequence: Sequence, prompt_tokens: list[int], other_tokens: list[int]
) -> None:
    """What was truncated and evaluated inside stays so."""
    sequence.evaluate(prompt_tokens)
    with sequence.transaction() as inside:
        inside.truncate(3)
        kept = inside.tokens
        inside.evaluate(other_tokens)
    assert sequence.tokens == [*kept, *other_tokens]
