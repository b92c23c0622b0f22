"""What an answer is asked to do and to tell: generation.md."""

from __future__ import annotations

import math
from collections.abc import Sequence as Tokens
from contextlib import suppress

import anyio
import numpy as np
import pytest
from anyio import to_thread
from numpy.typing import NDArray

from llmcore import Context, Model, Sequence
from llmcore.errors import (
    OperationCancelledError,
    OperationTimeoutError,
    SequenceBusyError,
)
from llmcore.events import CacheHit, Finish, Usage
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_becomes
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, FreshAnswers, answer, endless

NEVER = -math.inf


# -- what ends an answer ---------------------------------------------------------------


@clause("gen.stop-token")
def test_an_answer_ends_at_a_stop_token(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """It has the tokens before the first of them, and says why it ended."""
    alone = as_new(prompt_tokens)
    stop = alone[3]
    params = endless(sequence.context.model)
    result = sequence.generate(
        prompt_tokens, params, max_tokens=8, stop_tokens=[stop]
    ).result
    assert (result.tokens, result.finish_reason) == (alone[: alone.index(stop)], "stop")


@clause("gen.ignore-eos")
def test_an_answer_can_go_on_after_an_end_token(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Each end token of the model, made certain, is drawn as often as was asked for."""
    for end in sequence.context.model.info.end_tokens:
        result = sequence.generate(
            prompt_tokens, max_tokens=3, ignore_eos=True, logit_bias={end: 1e6}
        ).result
        assert (result.tokens, result.finish_reason) == ((end,) * 3, "max_tokens")


@clause("gen.min-tokens")
def test_an_answer_does_not_end_too_early(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """End and stop tokens, made certain, wait for their time."""
    ends = sequence.context.model.info.end_tokens
    cases = [(ends, ()), (prompt_tokens[-1:], prompt_tokens[-1:])]
    for certain, stops in cases if ends else cases[1:]:
        result = sequence.generate(
            prompt_tokens,
            logit_bias=dict.fromkeys(ends, NEVER) | dict.fromkeys(certain, 1e6),
            min_tokens=3,
            max_tokens=8,
            stop_tokens=stops,
        ).result
        assert len(result.tokens) == 3, f"it ended because of {result.finish_reason}"


# -- ending it from outside ------------------------------------------------------------


@clause("gen.cancel-prompt")
def test_cancelling_ends_a_long_prompt(
    model: Model, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """After the call that runs no other one begins; the sequence is free."""
    context = model.create_context(
        context_size=SIZE, batch_size=8, micro_batch_size=8, threads=1
    )
    sequence = context.get_sequence()
    prompt = prompt_tokens[:1] * (6 * context.params.batch_size)
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        stream = sequence.generate(prompt)
        gate.wait_entered()
        calls = ledger.calls["decode"]
        stream.cancel()
    with suppress(OperationCancelledError):
        list(stream)
    more = ledger.calls["decode"] - calls
    assert not more, f"{more} more calls of the engine for a cancelled prompt"
    assert len(answer(sequence, prompt_tokens[:4], 2)) == 2


@clause("gen.task-cancel")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_task_frees_its_sequence(
    sequence: Sequence,
    prompt_tokens: list[int],
    ledger: SeamLedger,
    as_new: FreshAnswers,
    loop: str,
) -> None:
    """Cancelled while the engine is inside a step, it leaves nothing behind."""
    params = endless(sequence.context.model)

    async def read() -> None:
        async for _ in stream:
            pass

    async def cancel_inside() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await to_thread.run_sync(gate.wait_entered)
            tasks.cancel_scope.cancel()

    with ledger.gate("decode", nth=3) as gate:
        stream = sequence.generate(prompt_tokens, params, max_tokens=64)
        anyio.run(cancel_inside, backend=loop)
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)
    assert next(stream, None) is None


@clause("gen.timeout")
def test_an_answer_that_takes_too_long_is_an_error(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The reader gets it once, and the sequence is free."""
    stream = sequence.generate(prompt_tokens, max_tokens=64, timeout=0)
    with pytest.raises(OperationTimeoutError):
        list(stream)
    assert list(stream) == []
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


@clause("gen.timeout")
def test_a_stream_that_nobody_reads_frees_its_sequence_in_time(
    sequence: Sequence, prompt_tokens: list[int], patience: float
) -> None:
    """No reader is needed for it; who reads later gets the error."""
    params = endless(sequence.context.model)
    stream = sequence.generate(prompt_tokens, params, max_tokens=64, timeout=0.05)

    def free() -> bool:
        with suppress(SequenceBusyError):
            sequence.evaluate(prompt_tokens[:1])
            return True
        return False

    assert_becomes(free, patience, "the sequence is free")
    with pytest.raises(OperationTimeoutError):
        list(stream)


# -- what it tells ---------------------------------------------------------------------


@clause("gen.events")
def test_events_come_in_order(sequence: Sequence, prompt_tokens: list[int]) -> None:
    """The cache first, what it cost and the end last, and the text in between."""
    params = endless(sequence.context.model)
    stream = sequence.generate(prompt_tokens, params, max_tokens=12)
    events = list(stream)
    kinds = [type(event) for event in events]
    assert (kinds[0], *kinds[-2:]) == (CacheHit, Usage, Finish), f"got {kinds}"
    assert len({*kinds} & {CacheHit, Usage, Finish}) == 3
    assert "".join(event.text for event in events) == stream.result.text


@clause("gen.usage")
def test_usage_is_what_the_engine_did(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """For a new prompt and for one that is there already, the numbers add up."""
    params = endless(sequence.context.model)
    for _ in range(2):
        before = len(ledger.batches)
        result = sequence.generate(prompt_tokens, params, max_tokens=8).result
        usage, cache = result.usage, result.cache
        fed = sum(len(batch.tokens) for batch in ledger.batches[before:])
        prompt = fed - (usage.completion_tokens - 1)  # the last one is only drawn
        assert usage.completion_tokens == len(result.tokens)
        assert usage.prompt_tokens == len(prompt_tokens) == result.prompt_tokens
        assert usage.cached_tokens == len(prompt_tokens) - prompt
        assert (cache.reused, cache.evaluated) == (usage.cached_tokens, prompt)


@clause("gen.logprobs")
def test_log_probabilities_are_those_of_the_model(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """They are the log-softmax of the logits, whatever the sampling parameters are."""
    params = endless(sequence.context.model, temperature=1.5, seed=5)
    result = sequence.generate(prompt_tokens, params, max_tokens=6, logprobs=3).result
    assert tuple(told.drawn.token for told in result.logprobs) == result.tokens
    sequence.clear()
    sequence.evaluate(prompt_tokens)
    for told in result.logprobs:
        logits = sequence.logits.astype(float)
        own = logits - logits.max()
        own -= math.log(np.exp(own).sum())
        for entry in (told.drawn, *told.top):
            assert entry.logprob == pytest.approx(own[entry.token], abs=0.05)
            assert entry.piece == sequence.context.model.piece(entry.token)
        best = np.sort(own)[-3:][::-1]
        assert [e.logprob for e in told.top] == pytest.approx(best, abs=0.05)
        sequence.evaluate([told.drawn.token])


# -- logits processors -----------------------------------------------------------------


@clause("gen.logits-processor")
@pytest.mark.parametrize("how", ["changes", "returns"])
def test_a_processor_decides_what_is_drawn(
    sequence: Sequence, prompt_tokens: list[int], how: str
) -> None:
    """It sees the prompt and what was drawn, and leaves just one token possible."""
    wanted = prompt_tokens[:0:-1]
    seen: list[list[int]] = []

    def process(
        tokens: Tokens[int], logits: NDArray[np.float32]
    ) -> NDArray[np.float32] | None:
        changed = logits if how == "changes" else np.empty_like(logits)
        changed[:] = NEVER
        changed[wanted[len(seen)]] = 0
        seen.append(list(tokens))
        return None if how == "changes" else changed

    result = sequence.generate(
        prompt_tokens,
        max_tokens=len(wanted),
        ignore_eos=True,
        logits_processors=[process],
    ).result
    assert list(result.tokens) == wanted
    assert seen == [[*prompt_tokens, *wanted[:n]] for n in range(len(wanted))]


@clause("gen.processor-error")
def test_a_processor_that_fails_fails_its_own_stream(
    wide_context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
) -> None:
    """Its reader gets the very exception; neighbours and the sequence are well."""
    error = LookupError("a bug of the caller")

    def process(tokens: Tokens[int], logits: object) -> None:
        if len(tokens) > len(prompt_tokens):
            raise error

    params = endless(wide_context.model)
    sequence, *others = [
        wide_context.get_sequence() for _ in range(wide_context.sequences_left)
    ]
    streams = [s.generate(other_tokens, params, max_tokens=16) for s in others]
    failing = sequence.generate(
        prompt_tokens, params, max_tokens=8, logits_processors=[process]
    )
    with pytest.raises(Exception, match=r".") as caught:
        _ = failing.result
    assert caught.value is error, f"it became {caught.value!r}"
    for stream in streams:
        assert stream.result.tokens == as_new(other_tokens, 16)
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)
