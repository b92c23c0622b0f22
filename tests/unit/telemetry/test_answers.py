"""What is told of an answer, however it ends."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

import llmcore
from llmcore import telemetry
from llmcore.errors import (
    DecodeError,
    DisposedError,
    OperationCancelledError,
    QueueFullError,
)
from llmcore.telemetry import TelemetryEvent

from .kit import PATIENCE, Ears, Stage, assert_paired

PARTS = ["request", "queue", "prefill", "decode"]


def test_order(stage: Stage, ears: Ears) -> None:
    """A request waits, reads its prompt, draws its tokens, and is complete."""
    _ = stage.sequence().generate([65, 66], max_tokens=3).result

    assert ears.story == [
        *("request start", "queue start", "queue complete"),
        *("prefill start", "prefill complete"),
        *("decode start", "decode complete", "request complete"),
    ]
    assert_paired(ears.events)


def test_nesting(stage: Stage, ears: Ears) -> None:
    """The parts of a request name it as their parent, and all name the sequence."""
    sequence = stage.sequence()
    _ = sequence.generate([65], max_tokens=2).result

    [request] = ears.of("request", "start")
    parents = {e.parent for e in ears.events if e.name != "request"}
    assert (request.parent, parents) == (None, {request.span})
    assert {e.subject.number for e in ears.events} == {sequence._node.number}
    assert request.subject.kind == "sequence"
    assert request.subject.parent == stage.context._node.number


def test_counts(stage: Stage, ears: Ears) -> None:
    """Token counts of the events are those of the result, reuse included."""
    sequence = stage.sequence()
    _ = sequence.generate([65, 66, 67], max_tokens=2).result
    result = sequence.generate([65, 66, 68], max_tokens=4).result

    usage = result.usage
    prefill = ears.of("prefill", "complete")[-1].attributes
    decode = ears.of("decode", "complete")[-1].attributes
    request = ears.of("request", "complete")[-1].attributes
    assert prefill == {"prompt_tokens": 3, "reused_tokens": usage.cached_tokens}
    assert usage.cached_tokens == 2
    assert decode == {"generated_tokens": 4}
    assert request["operation"] == "text_completion"
    assert request["finish_reason"] == result.finish_reason
    assert (request["model"], request["backend"]) == ("null", "null")
    facts = ("prompt_tokens", "reused_tokens", "generated_tokens")
    assert [request[fact] for fact in facts] == [3, 2, 4]


def test_chat(stage: Stage, ears: Ears) -> None:
    """A turn of a chat says that it is one."""
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    chat = llmcore.ChatSession(stage.sequence(), chat_template=template)
    chat.prompt("Hi", max_tokens=2)
    chat.dispose()

    assert ears.of("request", "complete")[0].attributes["operation"] == "chat"


def test_end_token_at_once(stage: Stage, ears: Ears) -> None:
    """An empty answer has all its parts, too."""
    end = min(stage.model.info.end_tokens)
    _ = stage.sequence().generate([65], logit_bias={end: 1e6}).result

    assert ears.of("decode", "complete")[0].attributes == {"generated_tokens": 0}
    assert_paired(ears.events)


def test_cancelled(stage: Stage, ears: Ears) -> None:
    """A stream that is cancelled fails where it is, and its request with it."""
    stream = stage.sequence().generate([65], max_tokens=100)
    next(stream)
    stream.cancel()
    with pytest.raises(OperationCancelledError):
        _ = stream.result

    [failure] = ears.of("request", "fail")
    assert failure.attributes["error_type"] == "OperationCancelledError"
    assert_paired(ears.events)


def test_closed(stage: Stage, ears: Ears) -> None:
    """When `close` has returned, the request has failed as cancelled."""
    stream = stage.sequence().generate([65], max_tokens=100)
    next(stream)
    stream.close()

    [failure] = ears.of("request", "fail")
    assert failure.attributes["error_type"] == "OperationCancelledError"
    assert_paired(ears.events)


def test_dropped(stage: Stage, ears: Ears) -> None:
    """A stream that nobody holds any more has an end as well."""
    sequence = stage.sequence()
    stream = sequence.generate([65], max_tokens=100)
    next(stream)
    del stream
    gc.collect()

    ears.wait("request", "fail")
    assert_paired(ears.events)


def test_stopped_in_line(stage: Stage, ears: Ears) -> None:
    """An answer that is stopped before its prompt was begun is complete and empty."""
    sequence = stage.sequence()
    with stage.script.gate("decode") as gate:
        other = stage.sequence().generate([65], max_tokens=1)
        gate.wait_entered()
        stream = sequence.generate([66], max_tokens=9)
        stream.stop()
    result = stream.result
    assert result.statistics.queue_time is None
    assert result.statistics.time_to_first_token is None
    _ = other.result

    mine = [e for e in ears.events if e.subject.number == sequence._node.number]
    assert [f"{e.name} {e.phase}" for e in mine] == [
        *("request start", "queue start", "queue complete", "request complete")
    ]


@pytest.mark.parametrize("what", ["sequence", "context", "model", "llama"])
def test_disposed_in_the_middle(stage: Stage, ears: Ears, what: str) -> None:
    """Disposing what a stream is on ends its request with that error."""
    sequence = stage.sequence()
    stream = sequence.generate([65], max_tokens=100)
    next(stream)
    on = {
        "sequence": sequence,
        "context": stage.context,
        "model": stage.model,
        "llama": stage.llama,
    }
    on[what].dispose()
    with pytest.raises(DisposedError):
        _ = stream.result

    [failure] = ears.of("request", "fail")
    assert failure.attributes["error_type"] == "DisposedError"
    assert_paired(e for e in ears.events if e.name in PARTS)


def test_failed_decode(stage: Stage, ears: Ears) -> None:
    """An engine that fails in the middle is told with its own error."""
    stage.script.fail("decode", nth=3, times=None)
    with pytest.raises(DecodeError):
        _ = stage.sequence().generate([65], max_tokens=9).result

    [failure] = ears.of("decode", "fail")
    assert failure.attributes["error_type"] == "DecodeError"
    assert "scripted" in failure.attributes["error"]
    assert failure.attributes["generated_tokens"] == 2
    assert_paired(ears.events)


def test_refused(stage: Stage, ears: Ears) -> None:
    """What the engine does not take on tells nothing."""
    sequence = stage.sequence(stage.new_context(max_waiting=1))
    streams = [sequence.generate([65], max_tokens=2, wait=True) for _ in range(2)]
    with pytest.raises(QueueFullError):
        sequence.generate([65], max_tokens=2, wait=True)
    for stream in streams:
        _ = stream.result

    assert len(ears.of("request", "start")) == 2
    assert_paired(ears.events)


def test_many_at_once(stage: Stage, ears: Ears) -> None:
    """Requests that share the engine have spans of their own."""

    def ask(sequence):
        _ = sequence.generate([65, 66], max_tokens=8).result

    threads = [threading.Thread(target=ask, args=[stage.sequence()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert_paired(ears.events)
    assert len(ears.of("request", "complete")) == 4
    for request in ears.of("request", "start"):
        parts = [e for e in ears.events if e.parent == request.span]
        assert {e.subject for e in parts} == {request.subject}
        assert [e.name for e in parts if e.phase == "start"] == PARTS[1:]


def test_async(stage: Stage, ears: Ears) -> None:
    """Tasks tell the same as threads."""

    async def ask(sequence):
        return [event async for event in sequence.generate([65], max_tokens=3)]

    async def main():
        await asyncio.gather(ask(stage.sequence()), ask(stage.sequence()))

    asyncio.run(main())
    assert len(ears.of("request", "complete")) == 2
    assert_paired(ears.events)


def test_cancelled_task(stage: Stage, ears: Ears) -> None:
    """A task that is cancelled while it waits for a token ends its request."""

    async def main():
        async def read():
            async for _ in sequence.generate([65], max_tokens=100):
                pass

        with stage.script.gate("decode", nth=2) as gate:
            task = asyncio.create_task(read())
            await asyncio.to_thread(gate.wait_entered)
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()

    sequence = stage.sequence()
    asyncio.run(main())
    ears.wait("request", "fail")
    assert_paired(ears.events)


def test_told_before_it_is_read(stage: Stage, ears: Ears) -> None:
    """Whoever has read an answer to its end finds its request complete."""
    for _ in range(20):
        with stage.context.get_sequence() as sequence:
            _ = sequence.generate([65], max_tokens=2).result
            assert len(ears.of("request", "start")) == len(
                ears.of("request", "complete")
            )


def test_steps(stage: Stage) -> None:
    """Each call of the engine is a step, for those who ask: its size, and for whom."""
    ears = Ears()
    with telemetry.listen(ears, names="step"):
        _ = stage.sequence().generate([65, 66, 67], max_tokens=3).result

    ends = [e.attributes for e in ears.of("step", "complete")]
    assert ends == [
        {"active": 1, "batch_size": 3, "prefill_tokens": 3, "decode_tokens": 0},
        *2 * [{"active": 1, "batch_size": 1, "prefill_tokens": 0, "decode_tokens": 1}],
    ]
    assert {e.subject.number for e in ears.events} == {stage.context._node.number}
    assert_paired(ears.events)


def test_failed_step(stage: Stage) -> None:
    """A step whose decode fails says so, and the answer fails as without a listener."""
    ears = Ears()
    stage.script.fail("decode", times=None)
    with (
        telemetry.listen(ears, names="step"),
        pytest.raises(DecodeError, match="scripted"),
    ):
        _ = stage.sequence().generate([65], max_tokens=3).result

    assert ears.story == ["step start", "step fail"]


def test_a_listener_that_uses_llmcore(stage: Stage) -> None:
    """A listener may cancel what it hears of, from inside."""
    streams: list[object] = []

    def cancel(event: TelemetryEvent) -> None:
        if event.name == "decode" and event.phase == "start":
            streams[0].cancel()

    with telemetry.listen(cancel), stage.script.gate("decode") as gate:
        streams.append(stage.sequence().generate([65], max_tokens=50))
        gate.wait_entered()
        gate.open()
        with pytest.raises(OperationCancelledError):
            _ = streams[0].result
