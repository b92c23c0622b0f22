"""Generation: generation.md, but for conversations."""

from __future__ import annotations

import anyio
import pytest

from llmcore import Context, SamplingParams, Sequence, Stream
from llmcore.errors import DecodeError, OperationCancelledError
from llmcore.lifecycle import collect_forgotten
from llmcore_conformance import clause
from llmcore_conformance.checks import in_thread
from llmcore_conformance.fixtures import StartGeneration
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import FreshAnswers, answer, endless

LONG = 128
"""Tokens of an answer that nobody reads to its end."""


def start(sequence: Sequence, prompt: list[int]) -> Stream:
    """A stream that the engine cannot have ended, of which the first event was read."""
    params = endless(sequence.context.model)
    stream = sequence.generate(prompt, params, max_tokens=LONG)
    next(stream)
    return stream


def texts(stream: Stream) -> list[str]:
    """The pieces of a stream."""
    return [event.text for event in stream if event.text]


# -- what ends an answer ---------------------------------------------------------------


@clause("gen.max-tokens")
@pytest.mark.parametrize("count", [1, 5])
def test_an_answer_has_the_number_of_tokens_asked_for(
    sequence: Sequence, prompt_tokens: list[int], count: int
) -> None:
    """It has exactly so many tokens, and the reason says why it ended."""
    params = endless(sequence.context.model)
    result = sequence.generate(prompt_tokens, params, max_tokens=count).result
    assert (len(result.tokens), result.finish_reason) == (count, "max_tokens")


@clause("gen.end-token")
def test_an_answer_ends_at_an_end_token(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Each end token of the model, made certain, ends the answer and is not in it."""
    for end in sequence.context.model.info.end_tokens:
        stream = sequence.generate(prompt_tokens, max_tokens=4, logit_bias={end: 1e6})
        result = stream.result
        assert (result.tokens, result.finish_reason) == ((), "end")


@clause("gen.stop-string")
def test_nothing_of_a_stop_string_is_shown(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The text ends before the earliest stop string, and so do the pieces."""
    params = endless(sequence.context.model)
    whole = sequence.generate(prompt_tokens, params, max_tokens=24).result.text
    late, stop = whole[-4:-1], whole[len(whole) // 3 :][:4]
    expected = whole[: min(whole.find(late), whole.find(stop))]
    stream = sequence.generate(prompt_tokens, params, max_tokens=24, stop=[late, stop])
    shown = "".join(texts(stream))
    assert shown == expected, f"stop string {stop!r} in {whole!r}"
    assert (stream.result.text, stream.result.finish_reason) == (expected, "stop")


@clause("gen.stop-string")
def test_what_only_begins_like_a_stop_string_is_shown(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Text that was held back for nothing comes at the end."""
    params = endless(sequence.context.model)
    whole = sequence.generate(prompt_tokens, params, max_tokens=8).result.text
    stop = whole[-1] + "\0 is never said"
    stream = sequence.generate(prompt_tokens, params, max_tokens=8, stop=stop)
    assert "".join(texts(stream)) == whole


@clause("gen.context-full")
def test_a_full_sequence_ends_the_answer(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The answer fills the sequence, says so, and nothing of its text is missing."""
    prompt = [prompt_tokens[-1]] * (sequence.size - 4)
    stream = sequence.generate(prompt, endless(sequence.context.model))
    shown = "".join(texts(stream))
    assert stream.result.finish_reason == "context_full"
    assert stream.result.text == shown
    assert len(stream.result.tokens) >= 4, "the sequence was not full yet"


# -- ending it from outside ------------------------------------------------------------


@clause("gen.early-exit")
def test_closing_a_stream_frees_its_sequence(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """After close() the next prompt is answered as new."""
    start(sequence, prompt_tokens).close()
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("gen.early-exit")
def test_leaving_the_block_of_a_stream_frees_its_sequence(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """After the block the next prompt is answered as new, though the name is left."""
    with start(sequence, prompt_tokens) as stream:
        pass
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)
    assert next(stream, None) is None


@clause("gen.early-exit")
def test_dropping_a_stream_frees_its_sequence(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """After a loop that was left by break the next prompt is answered as new."""
    params = endless(sequence.context.model)
    for _ in sequence.generate(prompt_tokens, params, max_tokens=8):
        break
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("gen.cancel")
def test_cancelling_raises_at_the_consumer(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The next piece is the error, and then the sequence is free."""
    stream = start(sequence, prompt_tokens)
    stream.cancel()
    with pytest.raises(OperationCancelledError):
        next(stream)
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("gen.cancel")
def test_cancelling_reaches_a_consumer_inside_the_engine(
    sequence: Sequence, running_generation: StartGeneration, ledger: SeamLedger
) -> None:
    """A consumer that waits for the engine in another thread gets the error."""
    with ledger.gate("decode", nth=3) as gate:
        generation = running_generation(sequence)
        gate.wait_entered()
        generation.stream.cancel()
    generation.join()
    assert isinstance(generation.error, OperationCancelledError)


@clause("gen.stop")
def test_stopping_keeps_what_there_is(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The consumer gets what was generated up to then, and a result with just that."""
    params = endless(sequence.context.model)
    stream = sequence.generate(prompt_tokens, params)
    shown = next(event.text for event in stream if event.text)
    stream.stop()
    shown += "".join(texts(stream))
    assert stream.result.finish_reason == "stopped"
    assert stream.result.text == shown


@clause("gen.finished")
def test_a_finished_stream_stays_finished(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Nothing comes after the end, however often it is asked."""
    stream = start(sequence, prompt_tokens)
    texts(stream)
    assert [next(stream, None) for _ in range(5)] == [None] * 5


@clause("gen.finished")
def test_a_failed_stream_fails_once(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """Nothing comes after the error, however often it is asked."""
    stream = start(sequence, prompt_tokens)
    ledger.fail("decode", DecodeError)
    with pytest.raises(DecodeError):
        texts(stream)
    assert [next(stream, None) for _ in range(5)] == [None] * 5


# -- which tokens ----------------------------------------------------------------------


@clause("gen.greedy-repeatable")
def test_a_greedy_answer_is_always_the_same(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The same prompt on an emptied sequence, five times, gives the same tokens."""
    for _ in range(5):
        assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)
        sequence.clear()


@clause("gen.seed-repeatable")
def test_a_seeded_answer_is_always_the_same(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The same seed on an emptied sequence gives the same tokens."""
    first = answer(sequence, prompt_tokens, temperature=1.0, seed=7)
    sequence.clear()
    second = answer(sequence, prompt_tokens, temperature=1.0, seed=7)
    assert first == second


def by_hand(
    sequence: Sequence, prompt: list[int], params: SamplingParams, count: int = 8
) -> tuple[int, ...]:
    """What a loop of `sample` and `evaluate` draws."""
    drawn: list[int] = []
    sequence.evaluate(prompt)
    while len(drawn) < count:
        drawn.append(sequence.sample(params))
        sequence.evaluate(drawn[-1:])
    return tuple(drawn)


@clause("gen.hand-greedy")
def test_a_greedy_loop_by_hand_draws_the_same(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """Both ways give the same tokens."""
    drawn = by_hand(sequence, prompt_tokens, endless(sequence.context.model))
    assert drawn == as_new(prompt_tokens)


@clause("gen.hand-seeded")
def test_a_seeded_loop_by_hand_draws_the_same(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Both ways give the same tokens, random as they are."""
    model = sequence.context.model
    params = endless(model, temperature=1.0, top_p=1.0, seed=11)
    drawn = by_hand(sequence, prompt_tokens, params)
    sequence.clear()
    generated = sequence.generate(prompt_tokens, params, max_tokens=8).result.tokens
    assert drawn == generated[:8]


# -- the pieces ------------------------------------------------------------------------


@clause("gen.whole-characters")
def test_a_character_cut_into_tokens_comes_whole(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """A character of several bytes, forced token by token, comes in one piece."""
    model = sequence.context.model
    character = "漢"
    tokens = [t for t in model.tokenize(character) if model.piece(t).strip()]
    # The first token is the most likely, and each that was drawn becomes less so than
    # all the others: they come one after the other, again and again.
    gap = 100 / len(tokens)
    params = SamplingParams(
        logit_bias={token: 1e4 - n * gap for n, token in enumerate(tokens)},
        frequency_penalty=100.0,
    )
    stream = sequence.generate(prompt_tokens[:1], params, max_tokens=3 * len(tokens))
    assert texts(stream)[:3] == [character] * 3


@clause("gen.any-thread")
def test_a_stream_goes_on_in_another_thread(
    sequence: Sequence,
    prompt_tokens: list[int],
    patience: float,
    as_new: FreshAnswers,
) -> None:
    """Started here, read there, and ended somewhere else, it is the same answer."""
    stream = start(sequence, prompt_tokens)
    in_thread(lambda: next(stream)).result(patience)
    result = in_thread(lambda: stream.result).result(patience)
    assert result.tokens[:8] == as_new(prompt_tokens)


@clause("gen.keeps-sequence")
def test_a_stream_keeps_its_sequence(
    context: Context, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """A stream of a sequence that nobody else holds goes on to its end."""
    params = endless(context.model)
    stream = context.get_sequence().generate(prompt_tokens, params, max_tokens=8)
    collect_forgotten()
    assert stream.result.tokens[:8] == as_new(prompt_tokens)


@clause("gen.async")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_stream_can_be_read_asynchronously(
    sequence: Sequence, prompt_tokens: list[int], loop: str
) -> None:
    """The pieces are those that a plain loop gets."""
    params = endless(sequence.context.model)
    expected = texts(sequence.generate(prompt_tokens, params, max_tokens=8))

    async def read() -> list[str]:
        async with sequence.generate(prompt_tokens, params, max_tokens=8) as stream:
            return [event.text async for event in stream if event.text]

    assert anyio.run(read, backend=loop) == expected
