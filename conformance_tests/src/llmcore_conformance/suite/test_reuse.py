"""What is kept of a cache, and what is dropped: the end of sequence.md."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from llmcore import ChatSession, Context, Model, Sequence, Shift
from llmcore.errors import CapabilityError
from llmcore.events import CacheHit, CacheReport, Shifted
from llmcore.spi import Batch
from llmcore.testing import ViolationKind
from llmcore.values import Capability
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_none
from llmcore_conformance.kinds import goes_back
from llmcore_conformance.ledger import RecordingContext, SeamLedger
from llmcore_conformance.probes import (
    CHAT_TEMPLATE,
    SIZE,
    FreshAnswers,
    answer,
    endless,
    narrowed,
)
from llmcore_conformance.target import Target

pytest_plugins = ["llmcore_conformance.kinds"]


@clause("seq.again")
def test_the_same_prompt_again_costs_one_token(
    any_sequence: Sequence, any_prompt: list[int], any_as_new: FreshAnswers
) -> None:
    """Each time the answer is the same; after the first time, almost for nothing."""
    model = any_sequence.context.model
    evaluated = []
    for _ in range(3):
        stream = any_sequence.generate(any_prompt, endless(model), max_tokens=8)
        assert stream.result.tokens == any_as_new(any_prompt)
        evaluated.append(stream.result.cache.evaluated)
    if goes_back(model.info):
        assert evaluated[1:] == [1, 1], "the prompt was evaluated again"


class KeptState(bytes):
    """A saved state that can be found while it lives."""

    @classmethod
    def total(cls) -> int:
        """How large those are together that live."""
        return sum(len(one) for one in gc.get_objects() if type(one) is cls)


@pytest.fixture
def kept_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """``kept_bytes()``: how large the states are together that core keeps."""
    save = RecordingContext.save_state
    monkeypatch.setattr(
        RecordingContext,
        "save_state",
        lambda self, sequence: KeptState(save(self, sequence)),
    )
    return KeptState.total


@clause("seq.checkpoint-bound")
def test_kept_states_are_bounded(
    any_model: Model, any_prompt: list[int], kept_bytes: Callable[[], int]
) -> None:
    """With any limit, prompts that grow keep no more than that."""

    def most_kept(limit: int) -> int:
        context = any_model.create_context(
            context_size=SIZE, threads=1, checkpoint_bytes=limit
        )
        with context, context.get_sequence() as sequence:
            most = 0
            for length in range(20, len(any_prompt), 20):
                answer(sequence, any_prompt[:length], 2)
                most = max(most, kept_bytes())
        return most

    wanted = most_kept(1 << 30)
    for limit in (wanted // 2, wanted // 4, 1, 0):
        assert most_kept(limit) <= limit


# -- what is told of it ----------------------------------------------------------------


@pytest.fixture
def evaluated_positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions that the engine evaluates."""
    decode, positions = RecordingContext.decode, list[int]()

    def note(self: RecordingContext, batch: Batch) -> None:
        positions.extend(batch.positions)
        decode(self, batch)

    monkeypatch.setattr(RecordingContext, "decode", note)
    return positions


@clause("reuse.report")
def test_the_report_is_what_the_engine_did(
    any_sequence: Sequence, any_prompt: list[int], evaluated_positions: list[int]
) -> None:
    """Of prompts that share all, much, little and nothing with what is held."""
    model = any_sequence.context.model
    can_move = {Capability.SHIFT, Capability.PARTIAL_REMOVE} <= model.capabilities
    without_a_part = [*any_prompt[:6], *any_prompt[12:]]

    def ask(prompt: list[int], **options: Any) -> CacheReport:
        evaluated_positions.clear()
        stream = any_sequence.generate(prompt, endless(model), max_tokens=2, **options)
        first = next(stream)
        assert isinstance(first, CacheHit)
        report = first.report
        assert stream.result.cache == report
        assert report.matched + report.shifted + report.evaluated == len(prompt)
        done = [position for position in evaluated_positions if position < len(prompt)]
        assert report.evaluated == len(done), "the report and the engine differ"
        assert report.reason
        return report

    other = any_prompt[::-1]
    for prompt in (any_prompt[:60], any_prompt, any_prompt, any_prompt[:30], other):
        ask(prompt)
    ask(any_prompt)
    if can_move:
        assert ask(without_a_part, overflow=Shift()).shifted


# -- a full sequence -------------------------------------------------------------------


@clause("shift.explicit")
def test_a_full_sequence_keeps_everything(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """An answer that fills it ends, and all of prompt and answer is still there."""
    stream = sequence.generate(prompt_tokens, endless(sequence.context.model))
    events = list(stream)
    assert not [event for event in events if isinstance(event, Shifted)]
    everything = [*prompt_tokens, *stream.result.tokens]
    assert sequence.tokens == everything[: sequence.size]


@clause("shift.keep")
@pytest.mark.parametrize("policy", ["value", "function"])
def test_an_answer_goes_on_without_old_tokens(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger, policy: str
) -> None:
    """The first tokens and the newest stay, and the events say how many went."""
    shift = Shift(keep=3)
    overflow = shift if policy == "value" else lambda tokens: shift
    wanted = sequence.size + 40
    stream = sequence.generate(
        prompt_tokens,
        endless(sequence.context.model),
        max_tokens=wanted,
        overflow=overflow,
    )
    shifts = [event for event in stream if isinstance(event, Shifted)]
    result = stream.result
    assert (result.finish_reason, len(result.tokens)) == ("max_tokens", wanted)
    assert {event.kept for event in shifts} == {3}
    dropped = sum(event.dropped for event in shifts)
    everything = [*prompt_tokens, *result.tokens]
    left = [*everything[:3], *everything[3 + dropped :]]
    held = sequence.tokens
    assert held in (left, left[:-1]), "other tokens were dropped than the events say"
    sequence.evaluate(prompt_tokens[:2])
    assert_none(
        ledger,
        ViolationKind.POSITIONS,
        cause="the token list and the engine's cache went apart",
    )


@clause("shift.undeclared")
@pytest.mark.parametrize("missing", [Capability.SHIFT, Capability.PARTIAL_REMOVE])
def test_shifting_that_is_not_declared_is_refused(
    target: Target, ledger: SeamLedger, prompt_tokens: list[int], missing: Capability
) -> None:
    """The error comes before anything is evaluated."""
    narrow = narrowed(target, frozenset(Capability) - {missing})
    with narrow.open(ledger) as llama:
        context = narrow.load(llama).create_context(context_size=SIZE, threads=1)
        sequence = context.get_sequence()
        with pytest.raises(CapabilityError):
            sequence.generate(prompt_tokens, max_tokens=2, overflow=Shift())
        assert sequence.tokens == []
    assert ledger.order("decode") == []


@clause("chat.shorten")
def test_the_system_message_and_the_question_are_always_shown(
    context: Context,
) -> None:
    """However many turns there were, both are in the prompt, and all in the history."""
    model, sequence = context.model, context.get_sequence()
    own = model.info.chat_template
    chat = ChatSession(
        sequence,
        system_prompt="You are brief.",
        chat_template=None if own else CHAT_TEMPLATE,
        overflow="shorten",
    )
    said = [("system", "You are brief.")]
    turns = 0
    while turns < 6 or not chat.forgotten:
        turns += 1
        assert turns < SIZE, "the conversation never becomes too long"
        question = f"This is question number {turns}."
        result = chat.stream(question, endless(model), max_tokens=8).result
        shown = model.detokenize(sequence.tokens[: result.prompt_tokens])
        assert "You are brief." in shown, f"turn {turns}"
        assert question in shown, f"turn {turns}"
        said += [("user", question), ("assistant", result.text)]
    assert [tuple(message) for message in chat.history] == said
