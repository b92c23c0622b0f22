"""A stream read by a thread: its events, and all the ways in which it ends."""

from __future__ import annotations

import gc

import pytest

from llmcore.errors import (
    BusyError,
    DisposedError,
    NoResultError,
    OperationCancelledError,
)
from llmcore.events import CacheHit, Finish, TextDelta, TokenDrawn, Usage
from llmcore.values import CacheKind

from .kit import fresh_answer, texts, truthful, until

ENDS = ["close", "drop", "break", "cancel", "with"]


class TestEvents:
    def test_their_order(self, stage):
        """First what was cached, then tokens and text, then the usage and the end."""
        events = list(stage().sequence().generate([65], max_tokens=3, logprobs=1))
        assert [
            CacheHit,
            *[TokenDrawn, TextDelta] * 3,
            Usage,
            Finish,
        ] == [type(event) for event in events]

    def test_their_texts_are_the_answer(self, stage):
        """The texts of all events, put together, are the text of the result."""
        stage = stage(answer="né à Paris ☃.")
        stream = stage.sequence().generate([65])
        assert "né à Paris ☃." == texts(stream) == stream.result.text

    def test_nothing_comes_after_the_end(self, stage):
        """A stream that was read to its end has no more events, however asked."""
        stream = stage().sequence().generate([65], max_tokens=2)
        assert isinstance(list(stream)[-1], Finish)
        assert [] == list(stream)
        assert next(stream, None) is None

    def test_the_result_twice(self, stage):
        """The result is there as often as it is asked for, also after reading."""
        stream = stage().sequence().generate([65], max_tokens=2)
        assert stream.result is stream.result
        assert [] == list(stream)

    def test_started(self, stage):
        """A stream has started when the first token was drawn."""
        stage = stage()
        with stage.script.gate("decode") as gate:
            stream = stage.sequence().generate([65], max_tokens=2)
            gate.wait_entered()
            assert not stream.started
        assert stream.result.tokens
        assert stream.started


class TestEnding:
    @pytest.mark.parametrize("kind", [CacheKind.FULL, CacheKind.RECURRENT])
    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("after", [0, 1, 4])
    def test_frees_the_sequence_at_once(self, stage, kind, end, after):
        """However a stream is left, the next prompt runs, and all it tells is true."""
        stage = stage(cache_kind=kind)
        sequence = stage.sequence()
        stream = sequence.generate(stage.tokens("first"), max_tokens=50)
        for _ in range(after):
            next(stream)
        if end == "close":
            stream.close()
        elif end == "break":
            for _ in stream:
                break
        elif end == "cancel":
            stream.cancel()
            with pytest.raises(OperationCancelledError):
                next(stream)
        elif end == "with":
            with stream:
                pass
        del stream
        assert truthful(sequence)
        prompt = stage.tokens("first or second")
        answer = sequence.generate(prompt, max_tokens=8).result.tokens
        assert fresh_answer(stage, prompt) == answer
        assert truthful(sequence)

    @pytest.mark.parametrize("end", ["close", "drop"])
    def test_the_next_prompt_begins_within_two_steps(self, stage, end):
        """After a stream was left in the middle, at most one more step is its own."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate([65] * 4, max_tokens=100)
        for _ in range(5):
            next(stream)
        if end == "close":
            stream.close()
        before = stage.decodes()
        del stream
        after = sequence.generate([66] * 3, max_tokens=1)
        assert 1 == len(after.result.tokens)
        first = next(
            n for n, b in enumerate(stage.ledger.batches[before:]) if 66 in b.tokens
        )
        assert first < 2

    def test_a_dropped_long_prompt(self, stage):
        """A stream dropped while its prompt is read is stopped inside of the step."""
        stage = stage()
        sequence = stage.sequence(batch_size=4)
        with stage.script.gate("decode", nth=2) as gate:
            stream = sequence.generate([65] * 40)
            gate.wait_entered()
            del stream
            until(lambda: not gate.waiting)  # although the gate is shut
        assert 2 == stage.decodes()
        assert truthful(sequence)

    def test_a_dropped_one_in_a_cycle(self, stage):
        """The collector frees the sequence of a stream that is a part of a cycle."""
        sequence = stage().sequence()

        class Holder:
            pass

        holder = Holder()
        holder.stream, holder.me = sequence.generate([65]), holder
        next(holder.stream)
        del holder
        gc.collect()
        sequence.evaluate([1])

    def test_stop_keeps_what_there_is(self, stage):
        """A stopped stream ends well: with a result, and the reason "stopped"."""
        sequence = stage().sequence()
        stream = sequence.generate([65], max_tokens=100)
        for _ in range(3):
            next(stream)
        stream.stop()
        result = stream.result
        assert "stopped" == result.finish_reason
        assert 2 <= len(result.tokens) < 100
        assert len(result.text.encode()) >= len(result.tokens)
        assert truthful(sequence)

    def test_stop_before_the_first_step(self, stage):
        """A stream that is stopped in line still ends with an empty answer."""
        sequence = stage().sequence()
        running = sequence.generate([65], max_tokens=3)
        waiter = sequence.generate([66], wait=True)
        waiter.stop()
        assert 3 == len(running.result.tokens)
        assert ("stopped", "") == (waiter.result.finish_reason, waiter.result.text)

    def test_cancel_leaves_no_result(self, stage):
        """A cancelled stream raises once, and has no result after that."""
        stream = stage().sequence().generate([65], max_tokens=100)
        next(stream)
        stream.cancel()
        with pytest.raises(OperationCancelledError):
            list(stream)
        assert [] == list(stream)
        with pytest.raises(NoResultError, match="cut off"):
            _ = stream.result

    def test_close_after_the_end_does_nothing(self, stage):
        """Closing a stream that ended keeps its result."""
        stream = stage().sequence().generate([65], max_tokens=2)
        result = stream.result
        stream.close()
        stream.cancel()
        assert result is stream.result


class TestTwoThreads:
    def test_a_second_reader(self, stage, worker):
        """Of two readers at once the second is refused; the first gets all."""
        stage = stage()
        with stage.script.gate("decode") as gate:
            stream = stage.sequence().generate([65], max_tokens=3)
            next(stream)  # what was cached is known before the first step
            reader = worker(lambda: list(stream))
            gate.wait_entered()
            until(stream._turn.locked)
            with pytest.raises(BusyError, match="one consumer"):
                next(stream)
        assert isinstance(reader.join()[-1], Finish)

    @pytest.mark.parametrize("end", ["close", "cancel"])
    def test_ended_while_another_reads(self, stage, worker, end):
        """Ended by another thread, a waiting reader gets one error; all is free."""
        stage = stage()
        sequence = stage.sequence()
        with stage.script.gate("decode") as gate:
            stream = sequence.generate([65])
            next(stream)
            reader = worker(lambda: list(stream))
            gate.wait_entered()
            until(stream._turn.locked)
            getattr(stream, end)()
        reader.join()
        assert isinstance(reader.error, OperationCancelledError)
        assert [] == list(stream)
        sequence.evaluate([1])

    def test_handed_from_thread_to_thread(self, stage, worker):
        """One thread after the other may read; together they get the answer."""
        stage = stage()
        stream = stage.sequence().generate([65], max_tokens=12)
        told = []
        while len(told) < 14:
            told.append(worker(lambda: next(stream)).join())
        rest = texts(told) + texts(stream)
        assert stream.result.text == rest


def test_a_disposed_stream_has_no_leftovers(stage):
    """After its context was disposed a stream tells so once, even if unread."""
    stream = stage().sequence().generate([65], max_tokens=3)
    stream._sequence.context.dispose()
    with pytest.raises(DisposedError):
        list(stream)
    assert [] == list(stream)
