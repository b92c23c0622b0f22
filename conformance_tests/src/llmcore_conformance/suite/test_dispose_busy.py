"""Disposing while work is running: lifecycle.md."""

from __future__ import annotations

from contextlib import suppress

import pytest

from llmcore import Context, Llama, Model, Sequence
from llmcore.errors import DisposedError, DisposeTimeoutError
from llmcore.testing import ViolationKind
from llmcore_conformance import clause
from llmcore_conformance.checks import (
    assert_becomes,
    assert_none,
    assert_waits,
    in_thread,
    outcome,
)
from llmcore_conformance.fixtures import StartGeneration
from llmcore_conformance.inflight import RunningGeneration
from llmcore_conformance.ledger import SeamLedger


@clause("dispose.busy")
def test_nothing_is_freed_while_a_call_is_inside(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    running_generation: StartGeneration,
    patience: float,
) -> None:
    """While another thread is held inside decode, disposing waits for it."""
    with ledger.gate("decode", abortable=False) as gate:
        running_generation(sequence)
        gate.wait_entered()
        disposal = in_thread(context.dispose)
        assert_waits(disposal, "dispose()")
    outcome(disposal, patience, "dispose()")
    cause = "it was freed without waiting for the call inside"
    assert_none(
        ledger, ViolationKind.FREE_IN_USE, ViolationKind.USE_AFTER_FREE, cause=cause
    )


@clause("dispose.cancel")
def test_generation_stops_at_the_next_step(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    running_generation: StartGeneration,
) -> None:
    """After the step that runs during the disposal, no other begins."""
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        generation = running_generation(sequence)
        gate.wait_entered()
        steps = ledger.calls["decode"]
        with suppress(DisposeTimeoutError):
            context.dispose(timeout=0)
    generation.join()
    more = ledger.calls["decode"] - steps
    assert not more, f"{more} more steps ran; likely cause: nobody tells the stream"


@clause("dispose.wait")
def test_generation_may_finish_if_asked_for(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    prompt_tokens: list[int],
    patience: float,
) -> None:
    """With inflight="wait" the answer is whole, and new work is refused meanwhile."""
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        generation = RunningGeneration(
            sequence, prompt_tokens, max_tokens=4, patience=patience
        )
        gate.wait_entered()
        with suppress(DisposeTimeoutError):
            context.dispose(inflight="wait", timeout=0)
        with pytest.raises(DisposedError):
            context.memory_info()
    generation.join()
    assert generation.error is None, f"the answer was cut: {generation.error!r}"
    assert len(generation.stream.result.tokens) == 4


@clause("dispose.ends-iteration")
def test_a_suspended_stream_raises_once(
    sequence: Sequence, context: Context, prompt_tokens: list[int]
) -> None:
    """The next piece of a stream whose context went is one DisposedError, then none."""
    stream = sequence.generate(prompt_tokens)
    next(stream)
    context.dispose()
    try:
        piece = next(stream, None)
    except DisposedError:
        rest = list(stream)
        assert rest == [], f"the stream went on after the error: {rest}"
    else:
        pytest.fail(f"the stream gave {piece} instead of DisposedError")


@clause("dispose.ends-iteration")
def test_a_running_stream_raises_once(
    sequence: Sequence, ledger: SeamLedger, running_generation: StartGeneration
) -> None:
    """A thread that waits for the next piece gets one DisposedError, then the end."""
    with ledger.gate("decode", nth=2) as gate:
        generation = running_generation(sequence)
        gate.wait_entered()
        with suppress(DisposeTimeoutError):
            sequence.dispose(timeout=0)
    generation.join()
    assert isinstance(generation.error, DisposedError), f"got {generation.error!r}"
    assert isinstance(generation.afterwards, StopIteration), (
        f"asking again gave {generation.afterwards!r}"
    )


@clause("dispose.in-callback")
def test_disposing_inside_a_call_returns_and_frees_later(
    llama: Llama, model: Model, ledger: SeamLedger, patience: float
) -> None:
    """A model disposed from inside its own tokenizer is freed when that call ends."""
    ledger.during("tokenize", model.dispose)
    outcome(in_thread(lambda: model.tokenize("a")), patience, "dispose() in a callback")
    assert_becomes(lambda: "model" not in ledger.live, patience, "the model is freed")
    assert_none(ledger, ViolationKind.FREE_IN_USE, cause="freed under its own caller")


@clause("dispose.timeout")
def test_a_timeout_frees_later(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    running_generation: StartGeneration,
    patience: float,
) -> None:
    """The caller gets DisposeTimeoutError; when the call ends, the context is freed."""
    with ledger.gate("decode", abortable=False) as gate:
        running_generation(sequence)
        gate.wait_entered()
        try:
            context.dispose(timeout=0)
        except DisposeTimeoutError:
            pass
        else:
            pytest.fail("dispose(timeout=0) returned with a call inside the engine")
        with pytest.raises(DisposedError):
            context.memory_info()
    assert_becomes(lambda: "context" not in ledger.live, patience, "it is freed")
