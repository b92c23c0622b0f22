"""The statistics of an answer."""

from __future__ import annotations

import pytest

from llmcore.telemetry import Statistics

from .kit import Ears, Stage


def statistics(**changes: object) -> Statistics:
    """Of an answer that waited 1 s, read 6 of 8 tokens in 2 s, drew 11 in 4 s."""
    values: dict[str, object] = {
        "prompt_tokens": 8,
        "reused_tokens": 2,
        "generated_tokens": 11,
        "queue_time": 1.0,
        "time_to_first_token": 3.0,
        "duration": 7.0,
    }
    return Statistics(**values | changes)


def test_rates() -> None:
    """Rates are evaluated and drawn tokens over the time that each part took."""
    assert statistics().prefill_rate == pytest.approx(3.0)
    assert statistics().generation_rate == pytest.approx(2.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"queue_time": None, "time_to_first_token": None, "generated_tokens": 0},
        {"queue_time": 3.0, "duration": 3.0},
        {"reused_tokens": 8, "generated_tokens": 1},
    ],
)
def test_no_rates(changes: dict[str, object]) -> None:
    """What did not happen, or took no time, has no rate."""
    assert statistics(**changes).prefill_rate is None
    assert statistics(**changes).generation_rate is None


def test_of_an_answer(stage: Stage) -> None:
    """Times are in order, and counts those of the usage."""
    result = stage.sequence().generate([65, 66], max_tokens=8).result
    found, usage = result.statistics, result.usage

    assert found.queue_time is not None
    assert found.time_to_first_token is not None
    assert 0 <= found.queue_time <= found.time_to_first_token <= found.duration
    assert (found.prompt_tokens, found.reused_tokens, found.generated_tokens) == (
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
    )


def test_time_in_line_counts(stage: Stage, ears: Ears) -> None:
    """Who waits in line behind another answer waits until that has ended."""
    sequence = stage.sequence()
    first = sequence.generate([65], max_tokens=4)
    second = sequence.generate([66], max_tokens=4, wait=True)
    _ = first.result
    waited = second.result.statistics.queue_time

    asked = ears.of("request", "start")[1].time
    assert waited is not None
    assert waited >= (ears.of("request", "complete")[0].time - asked) / 1e9


def test_equal_answers(stage: Stage) -> None:
    """Two equal answers are equal, however long they took."""
    ask = [stage.sequence().generate([65], max_tokens=4) for _ in range(2)]
    one, other = (stream.result for stream in ask)

    assert one == other
    assert one.statistics != other.statistics
