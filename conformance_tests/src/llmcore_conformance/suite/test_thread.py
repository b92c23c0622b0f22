"""Threads: threads.md."""

from __future__ import annotations

import pytest

from llmcore import BackendInfo, Context, Model, Sequence
from llmcore.errors import SequenceBusyError
from llmcore.testing import ViolationKind
from llmcore_conformance import clause
from llmcore_conformance.checks import (
    assert_none,
    assert_waits,
    in_thread,
    outcome,
)
from llmcore_conformance.fixtures import StartGeneration
from llmcore_conformance.ledger import SeamLedger

SIZE = 256


@clause("thread.one-user")
def test_a_second_user_is_refused(
    sequence: Sequence, prompt_tokens: list[int], patience: float
) -> None:
    """Evaluating, cutting and generating are refused while a stream is open."""
    alone = sequence.generate(prompt_tokens, max_tokens=24).result.tokens
    stream = sequence.generate(prompt_tokens, max_tokens=24)
    next(stream)
    for second in (
        lambda: sequence.generate(prompt_tokens),
        lambda: sequence.evaluate(prompt_tokens),
        lambda: sequence.truncate(0),
    ):
        with pytest.raises(SequenceBusyError):
            outcome(in_thread(second), patience, "the second user")
    assert stream.result.tokens == alone, "the first user was disturbed"


@clause("thread.hand-over")
def test_any_thread_may_go_on(
    model: Model, prompt_tokens: list[int], patience: float
) -> None:
    """One thread makes, the next evaluates, a third generates and disposes."""

    def make() -> Sequence:
        return model.create_context(context_size=SIZE, threads=1).get_sequence()

    def finish() -> tuple[int, ...]:
        with sequence.context:
            return sequence.generate(prompt_tokens, max_tokens=2).result.tokens

    sequence = outcome(in_thread(make), patience, "making")
    outcome(in_thread(lambda: sequence.evaluate(prompt_tokens)), patience, "evaluating")
    assert len(outcome(in_thread(finish), patience, "generating")) == 2


@clause("thread.no-overlap")
def test_a_second_call_waits_for_the_first(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    running_generation: StartGeneration,
    patience: float,
) -> None:
    """Another thread that asks the same context waits until the decode is over."""
    with ledger.gate("decode", nth=2, abortable=False) as gate:
        running_generation(sequence)
        gate.wait_entered()
        question = in_thread(context.memory_info)
        assert_waits(question, "a call on the context that evaluates")
    outcome(question, patience, "the call that waited")
    assert_none(ledger, ViolationKind.OVERLAP, cause="a call without the lock")


@clause("thread.concurrent-dispose")
def test_every_disposer_waits_until_it_is_freed(
    sequence: Sequence,
    context: Context,
    ledger: SeamLedger,
    running_generation: StartGeneration,
    patience: float,
) -> None:
    """Neither of two disposals returns while the context is still in use."""

    def dispose() -> int:
        context.dispose()
        return ledger.live.get("context", 0)

    with ledger.gate("decode", abortable=False) as gate:
        running_generation(sequence)
        gate.wait_entered()
        disposals = [in_thread(dispose) for _ in range(2)]
        for disposal in disposals:
            assert_waits(disposal, "one of two disposals")
    left = [outcome(disposal, patience, "dispose()") for disposal in disposals]
    assert left == [0, 0], "one of the disposals returned before it was freed"


@clause("thread.independent")
def test_contexts_in_many_threads_answer_as_alone(
    model: Model, prompt_tokens: list[int], patience: float
) -> None:
    """Three contexts of a model give the same tokens at once and one by one."""
    contexts = [model.create_context(context_size=SIZE, threads=1) for _ in range(3)]
    sequences = [context.get_sequence() for context in contexts]

    def generate(number: int) -> tuple[int, ...]:
        prompt = prompt_tokens[number:]
        return sequences[number].generate(prompt, max_tokens=8).result.tokens

    alone = [generate(number) for number in range(3)]
    at_once = [in_thread(lambda n=n: generate(n)) for n in range(3)]  # type: ignore[misc]
    together = [outcome(work, patience, "generating") for work in at_once]
    assert together == alone


@clause("thread.independent")
def test_a_step_inside_a_step_changes_neither(
    model: Model,
    backend_info: BackendInfo,
    ledger: SeamLedger,
    prompt_tokens: list[int],
    patience: float,
) -> None:
    """A whole step of one context between the halves of another's harms neither."""
    contexts = [model.create_context(context_size=SIZE, threads=1) for _ in range(2)]
    first, second = [context.get_sequence() for context in contexts]
    prompts = prompt_tokens, prompt_tokens[1:]
    alone = [
        s.generate(p, max_tokens=4).result.tokens
        for s, p in zip((first, second), prompts, strict=True)
    ]
    inside: list[tuple[int, ...]] = []

    def other() -> tuple[int, ...]:
        return second.generate(prompts[1], max_tokens=4).result.tokens

    def step() -> None:
        for op in ("logits", "sample"):  # only in the step of the first one
            ledger.during(op, lambda: None)
        inside.append(outcome(in_thread(other), patience, "the other context"))

    if backend_info.exclusion == "context":  # else the engine serves one at a time
        ledger.during("logits", step)
        ledger.during("sample", step)
    together = [first.generate(prompts[0], max_tokens=4).result.tokens]
    together += inside or [other()]
    assert together == alone, "one context saw what another one did"
