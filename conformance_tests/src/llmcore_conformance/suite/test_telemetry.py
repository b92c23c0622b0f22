"""What is told while it works: telemetry.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest

from llmcore import Context, Llama, Model, Sequence, Stream, telemetry
from llmcore.errors import DecodeError, DisposeError, LlmcoreError
from llmcore.telemetry import TelemetryEvent
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_becomes, label
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import FreshAnswers, endless
from llmcore_conformance.target import Target

PARTS = ("queue", "prefill", "decode")
LONG = 128
"""Tokens of an answer that nobody reads to its end."""

Heard = list[TelemetryEvent]


@pytest.fixture
def heard(llama: Llama) -> Iterator[Heard]:
    """All events from now on, but for single steps."""
    events: Heard = []
    with telemetry.listen(events.append):
        yield events


def about(heard: Heard, name: str) -> Heard:
    """The events whose subject is the resource with this label."""
    return [event for event in heard if event.subject.label.split()[0] == name]


def requests(heard: Heard, sequence: str) -> Heard:
    """Those of the answers of a sequence and of their parts."""
    return [e for e in about(heard, sequence) if e.name in ("request", *PARTS)]


def ask(sequence: Sequence, prompt: list[int], count: int = 8) -> Stream:
    """An answer of so many tokens."""
    params = endless(sequence.context.model)
    return sequence.generate(prompt, params, max_tokens=count)


def open_spans(heard: Heard) -> set[int]:
    """Those that began and have not ended."""
    begun = {event.span for event in heard if event.phase == "start"}
    return begun - {event.span for event in heard if event.phase != "start"}


def paired(chosen: Callable[[], Heard], patience: float) -> Heard:
    """The chosen events, when each start among them has had one end; at least one."""
    __tracebackhide__ = True
    assert_becomes(
        lambda: chosen() and not open_spans(chosen()), patience, "each span has an end"
    )
    events = chosen()
    for span in {event.span for event in events}:
        phases = [event.phase for event in events if event.span == span]
        assert phases[0] == "start", f"the events of a span are {phases}"
        assert len(phases) == 2, f"the events of a span are {phases}"
    return events


# -- spans -----------------------------------------------------------------------------


@clause("telemetry.one-end")
@pytest.mark.parametrize("way", ["read", "cancel", "close", "dispose", "context"])
def test_an_answer_has_one_end(
    sequence: Sequence,
    prompt_tokens: list[int],
    heard: Heard,
    way: str,
    patience: float,
) -> None:
    """It is told once, however the answer ends."""
    name = label(sequence)
    stream = ask(sequence, prompt_tokens, 4 if way == "read" else LONG)
    next(stream)
    end = {
        "read": lambda: stream.result,
        "cancel": stream.cancel,
        "close": stream.close,
        "dispose": sequence.dispose,
        "context": sequence.context.dispose,
    }
    end[way]()
    with suppress(LlmcoreError):
        _ = stream.result
    mine = paired(lambda: requests(heard, name), patience)
    phase = next(e.phase for e in mine if e.name == "request" and e.phase != "start")
    assert phase == ("complete" if way == "read" else "fail")


@clause("telemetry.one-end")
def test_a_failing_answer_has_one_end(
    sequence: Sequence,
    prompt_tokens: list[int],
    heard: Heard,
    ledger: SeamLedger,
    patience: float,
) -> None:
    """An engine that fails is told as a failure with the name of the error."""
    ledger.fail("decode", DecodeError, times=None)
    with pytest.raises(DecodeError):
        _ = ask(sequence, prompt_tokens).result
    mine = paired(lambda: requests(heard, label(sequence)), patience)
    [error] = {e.attributes["error_type"] for e in mine if e.phase == "fail"}
    assert error == "DecodeError"


@clause("telemetry.one-end")
def test_a_load_has_one_end(
    target: Target, llama: Llama, heard: Heard, ledger: SeamLedger, patience: float
) -> None:
    """One that fails has failed, and the next one is complete."""
    ledger.fail("load")
    with pytest.raises(LlmcoreError):
        target.load(llama)
    target.load(llama)
    loads = paired(lambda: [e for e in heard if e.name == "load"], patience)
    ends = [event.phase for event in loads if event.phase != "start"]
    assert ends == ["fail", "complete"]


@clause("telemetry.one-end")
def test_a_disposal_has_one_end_for_each_resource(
    llama: Llama,
    model: Model,
    context: Context,
    heard: Heard,
    ledger: SeamLedger,
    patience: float,
) -> None:
    """Each resource is told once, also if its teardown fails."""
    resources = (llama, model, context, context.get_sequence())
    names = [label(resource) for resource in resources]
    broken = label(context)
    ledger.fail("close_context")
    with suppress(DisposeError):
        llama.dispose()
    for name in names:
        paired(partial(about, heard, name), patience)
    [end] = [e for e in about(heard, broken) if e.phase != "start"]
    assert end.phase == "fail"


@clause("telemetry.in-time")
@pytest.mark.parametrize("way", ["read", "close", "context"])
def test_what_is_over_has_ended(
    sequence: Sequence, prompt_tokens: list[int], heard: Heard, way: str
) -> None:
    """When the call that ends an answer returns, nothing of it is open."""
    name = label(sequence)
    stream = ask(sequence, prompt_tokens, 4 if way == "read" else LONG)
    next(stream)
    if way == "read":
        _ = stream.result
    elif way == "close":
        stream.close()
    else:
        sequence.context.dispose()
    mine = requests(heard, name)
    names = [event.name for event in mine if event.span in open_spans(mine)]
    assert mine, "nothing was told"
    assert not names, f"{' and '.join(names)} had not ended"


@clause("telemetry.parts")
def test_the_parts_of_a_request_follow_one_another(
    sequence: Sequence, prompt_tokens: list[int], heard: Heard
) -> None:
    """Queue, prefill and decode are its children, in that order, one at a time."""
    _ = ask(sequence, prompt_tokens).result
    mine = requests(heard, label(sequence))
    [request] = [e.span for e in mine if (e.name, e.phase) == ("request", "start")]
    starts = [e for e in mine if e.name in PARTS and e.phase == "start"]
    assert tuple(event.name for event in starts) == PARTS
    parents = [event.parent for event in starts]
    assert parents == [request] * 3, f"parents {parents} of the request {request}"
    for before, after in pairwise(starts):
        end = next(e for e in mine if e.span == before.span and e.phase != "start")
        assert mine.index(end) < mine.index(after)


@clause("telemetry.counts")
def test_the_counts_are_those_of_the_result(
    sequence: Sequence, prompt_tokens: list[int], heard: Heard
) -> None:
    """Prompt, reused and generated tokens agree, also where the cache was of use."""
    for prompt in (prompt_tokens, [*prompt_tokens, prompt_tokens[0]]):
        heard.clear()
        usage = ask(sequence, prompt).result.usage
        expected = {
            "prompt_tokens": usage.prompt_tokens,
            "reused_tokens": usage.cached_tokens,
            "generated_tokens": usage.completion_tokens,
        }
        told: dict[str, set[int]] = {name: set() for name in expected}
        for event in requests(heard, label(sequence)):
            for name in expected.keys() & event.attributes.keys():
                told[name].add(event.attributes[name])
        assert told == {name: {count} for name, count in expected.items()}


@clause("telemetry.times")
def test_the_times_of_an_answer_are_in_order(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Waiting ends before the first token, which is there before the last."""
    statistics = ask(sequence, prompt_tokens).result.statistics
    times = (
        0.0,
        statistics.queue_time,
        statistics.time_to_first_token,
        statistics.duration,
    )
    assert None not in times
    assert list(times) == sorted(time or 0.0 for time in times)


# -- listeners -------------------------------------------------------------------------


@clause("telemetry.failing-listener")
def test_a_listener_that_raises_disturbs_nobody(
    sequence: Sequence, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The answer, and what a later listener hears, are as without it."""

    def fail(event: TelemetryEvent) -> None:
        raise OSError("a listener raised")

    heard: Heard = []
    with telemetry.listen(fail), telemetry.listen(heard.append):
        try:
            tokens = ask(sequence, prompt_tokens).result.tokens
        except Exception as error:
            pytest.fail(f"the answer failed with {error!r}")
    assert tokens == as_new(prompt_tokens)
    names = {e.name for e in requests(heard, label(sequence)) if e.phase == "complete"}
    assert names == {"request", *PARTS}


@clause("telemetry.closed")
def test_a_closed_listener_hears_nothing(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Not even the end of what it heard the start of."""
    heard: Heard = []
    subscription = telemetry.listen(heard.append)
    stream = ask(sequence, prompt_tokens)
    next(stream)
    subscription.close()
    before = list(heard)
    _ = stream.result
    assert before, "it heard nothing while it listened"
    late = [f"{event.name} {event.phase}" for event in heard[len(before) :]]
    assert not late, f"it heard {late}"
