"""Batches and standing in line: engine.md."""

from __future__ import annotations

import pytest

from llmcore import Context, Model, Sequence, Stream
from llmcore.errors import DecodeError, OperationTimeoutError, QueueFullError
from llmcore.spi import Batch
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_waits, in_thread, outcome
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, FreshAnswers, answer, endless

SMALL = 8
"""Tokens of a micro-batch, where prompts are to take several."""

BOUND = 32
"""Tokens that no stream may be ahead of its reader."""


@pytest.fixture
def pair(wide_context: Context) -> tuple[Sequence, Sequence]:
    """Two sequences of one context."""
    return wide_context.get_sequence(), wide_context.get_sequence()


def begin(sequence: Sequence, prompt: list[int], count: int = 8) -> Stream:
    """A stream of so many tokens."""
    params = endless(sequence.context.model)
    return sequence.generate(prompt, params, max_tokens=count)


def number_of(sequence: Sequence, ledger: SeamLedger) -> int:
    """Which number an empty sequence has at the seam; it is empty afterwards."""
    sequence.evaluate([0])
    sequence.clear()
    return ledger.batches[-1].sequences[0]


def tokens_of(number: int, batches: list[Batch]) -> int:
    """How many tokens of a sequence are in some batches."""
    return sum(list(batch.sequences).count(number) for batch in batches)


# -- batches ---------------------------------------------------------------------------


@clause("batch.shared")
def test_who_waits_at_once_is_served_at_once(
    pair: tuple[Sequence, Sequence],
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
) -> None:
    """What came while the engine was busy is in its next call, with all the rest."""
    first, second = pair
    with ledger.gate("decode", abortable=False) as gate:
        streams = [begin(first, prompt_tokens)]
        gate.wait_entered()
        held = len(ledger.batches)
        streams.append(begin(second, other_tokens))
    for stream in streams:
        assert len(stream.result.tokens) == 8
    shared = set(ledger.batches[held].sequences)
    assert len(shared) == 2, f"the call after that was for sequence {shared} alone"


@clause("batch.decode-first")
def test_a_long_prompt_does_not_hold_up_a_running_answer(
    model: Model, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """Between two of its tokens there is no more than one micro-batch."""
    context = model.create_context(
        context_size=SIZE,
        sequences=2,
        batch_size=8 * SMALL,
        micro_batch_size=SMALL,
        threads=1,
    )
    running, other = context.get_sequence(), context.get_sequence()
    limit = context.params.micro_batch_size
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        stream = begin(running, prompt_tokens[:4], 64)
        next(stream)
        gate.wait_entered()
        held = len(ledger.batches)
        number = ledger.batches[-1].sequences[0]
        # Few steps: the stream, which nobody reads meanwhile, is not parked.
        long = begin(other, prompt_tokens[:1] * (4 * limit), 1)
    _ = long.result
    stream.close()
    between = 0
    for batch in ledger.batches[held:]:
        between += sum(n != number for n in batch.sequences)
        assert between <= limit, f"{between} tokens between two of a running answer"
        if number in batch.sequences:
            between = 0


@clause("batch.priority")
def test_prompts_are_served_by_priority_and_arrival(
    model: Model, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """Of three that came while the engine was busy, the urgent one is first."""
    context = model.create_context(
        context_size=SIZE,
        sequences=4,
        batch_size=SMALL,
        micro_batch_size=SMALL,
        scheduling="fifo",
        threads=1,
    )
    sequences = [context.get_sequence() for _ in range(4)]
    numbers = [number_of(sequence, ledger) for sequence in sequences]
    prompt = prompt_tokens[:1] * (3 * context.params.batch_size)
    with ledger.gate("decode", abortable=False) as gate:
        streams = [sequences[0].generate(prompt_tokens[:4], max_tokens=1)]
        gate.wait_entered()
        held = len(ledger.batches)
        for sequence, priority in zip(sequences[1:], (0, 0, 1), strict=True):
            streams.append(sequence.generate(prompt, max_tokens=1, priority=priority))
    for stream in streams:
        _ = stream.result
    order = [n for batch in ledger.batches[held:] for n in batch.sequences]
    served = [n for n in dict.fromkeys(order) if n != numbers[0]]
    assert served == [numbers[3], numbers[1], numbers[2]]


@clause("batch.failed-neighbour")
def test_a_failing_part_of_a_batch_fails_alone(
    pair: tuple[Sequence, Sequence],
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """One gets its own error, the other one its answer as if it had been alone."""
    good, bad = pair
    ledger.fail("decode", DecodeError, times=None, sequence=number_of(bad, ledger))
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        stream = begin(good, prompt_tokens)
        gate.wait_entered()
        failing = begin(bad, other_tokens)
    assert stream.result.tokens[:8] == as_new(prompt_tokens)
    with pytest.raises(DecodeError):
        _ = failing.result


@clause("batch.failed-neighbour")
def test_a_batch_that_fails_once_fails_nobody(
    pair: tuple[Sequence, Sequence],
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """What fails together and works alone is an answer for everybody."""
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        streams = [begin(pair[0], prompt_tokens)]
        gate.wait_entered()
        streams.append(begin(pair[1], other_tokens))
        ledger.during("decode", lambda: ledger.fail("decode", DecodeError))
    answers = [stream.result.tokens[:8] for stream in streams]
    assert answers == [as_new(prompt_tokens), as_new(other_tokens)]


@clause("batch.purged")
def test_what_was_in_line_goes_with_its_sequence(
    pair: tuple[Sequence, Sequence],
    prompt_tokens: list[int],
    ledger: SeamLedger,
    patience: float,
) -> None:
    """A prompt that waits for the engine is never evaluated once it is disposed."""
    number = number_of(pair[1], ledger)
    with ledger.gate("decode", abortable=False) as gate:
        stream = begin(pair[0], prompt_tokens)
        gate.wait_entered()
        _in_line = begin(pair[1], prompt_tokens)
        held = len(ledger.batches)
        outcome(in_thread(pair[1].dispose), patience, "dispose()")
    assert len(stream.result.tokens) == 8
    late = tokens_of(number, ledger.batches[held:])
    assert not late, f"{late} tokens of a disposed sequence reached the engine"


@clause("batch.run-ahead")
def test_a_stream_that_is_not_read_waits_for_its_reader(
    pair: tuple[Sequence, Sequence],
    prompt_tokens: list[int],
    other_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """While a neighbour is read to its end it stops, and then it goes on as new."""
    number = number_of(pair[0], ledger)
    begun = len(ledger.batches)
    count = 2 * BOUND
    unread = begin(pair[0], prompt_tokens, count)
    assert len(begin(pair[1], other_tokens, count).result.tokens) == count
    ahead = tokens_of(number, ledger.batches[begun:]) - len(prompt_tokens)
    assert ahead <= BOUND, f"it went on for {ahead} tokens that nobody read"
    tokens = unread.result.tokens
    assert (len(tokens), tokens[:16]) == (count, as_new(prompt_tokens, 16))


# -- standing in line ------------------------------------------------------------------


@clause("queue.wait")
def test_a_line_is_served_in_order(
    sequence: Sequence, prompt_tokens: list[int], patience: float, as_new: FreshAnswers
) -> None:
    """Each is answered when all before it have been read, and not before."""
    prompts = [prompt_tokens, prompt_tokens[::-1], prompt_tokens[1:]]
    params = endless(sequence.context.model)
    streams = [
        sequence.generate(prompt, params, max_tokens=8, wait=True) for prompt in prompts
    ]
    for stream, prompt in zip(streams, prompts, strict=True):
        reading = in_thread(lambda s=stream: s.result.tokens[:8])  # type: ignore[misc]
        assert outcome(reading, patience, "the first in line") == as_new(prompt)


@clause("queue.full")
def test_a_full_line_takes_no_more(
    model: Model, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """One too many is refused; the others are answered as if it had not come."""
    context = model.create_context(context_size=SIZE, max_waiting=1, threads=1)
    sequence, params = context.get_sequence(), endless(model)
    streams = [
        sequence.generate(prompt_tokens, params, max_tokens=8, wait=True)
        for _ in range(2)
    ]
    with pytest.raises(QueueFullError):
        sequence.generate(prompt_tokens, params, max_tokens=8, wait=True)
    for stream in streams:
        assert stream.result.tokens[:8] == as_new(prompt_tokens)


@clause("queue.timeout")
def test_who_waits_too_long_is_sent_away(
    sequence: Sequence, prompt_tokens: list[int], patience: float, as_new: FreshAnswers
) -> None:
    """The error comes while the first stream still has the sequence."""
    stream = begin(sequence, prompt_tokens, 64)
    waiting = sequence.generate(prompt_tokens, max_tokens=8, wait=True, timeout=0)
    with pytest.raises(OperationTimeoutError):
        outcome(in_thread(lambda: waiting.result), patience, "who waits in line")
    assert stream.result.tokens[:16] == as_new(prompt_tokens, 16)


@clause("queue.timeout")
def test_who_waits_too_long_for_a_sequence_is_sent_away(
    context: Context, patience: float
) -> None:
    """The error says that the time is over, and the next one can wait again."""
    taken = context.get_sequence()
    for _ in range(2):
        waiting = in_thread(lambda: context.get_sequence(wait=True, timeout=0))
        with pytest.raises(OperationTimeoutError):
            outcome(waiting, patience, "get_sequence()")
    assert not taken.disposed


@clause("queue.sequence")
def test_a_sequence_can_be_waited_for(
    context: Context, prompt_tokens: list[int], patience: float, as_new: FreshAnswers
) -> None:
    """It comes when the one that is taken is disposed, and works as new."""
    taken = context.get_sequence()
    taken.evaluate(prompt_tokens[2:])
    waiting = in_thread(lambda: context.get_sequence(wait=True))
    assert_waits(waiting, "get_sequence(wait=True)")
    taken.dispose()
    following = outcome(waiting, patience, "get_sequence(wait=True)")
    assert answer(following, prompt_tokens) == as_new(prompt_tokens)
