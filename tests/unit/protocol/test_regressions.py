"""What random programs found: each is a moment between two threads."""

from __future__ import annotations

from contextlib import suppress

import pytest

from llmcore.backends.null.context import NullContext
from llmcore.errors import BusyError, NoResultError, OperationCancelledError
from llmcore.prediction import Predictor
from llmcore.values import Shift

from .kit import sequences, truthful, until


class Liar(Predictor):
    """Guesses what is never said."""

    def start(self, tokens):
        pass

    def accept(self, tokens):
        pass

    def predict(self, limit):
        return [1] * min(limit, 3)


class TestClearingAContext:
    def test_wakes_who_got_in_line(self, stage, worker):
        """An answer asked for while its context is cleared comes after that."""
        stage = stage()
        sequence = stage.sequence()
        sequence.evaluate([1, 2, 3])
        works = sequence.context._engine.loop._works
        with stage.script.gate("clear") as gate:
            clearer = worker(sequence.context.clear)
            gate.wait_entered()
            stream = sequence.generate([65], max_tokens=2, wait=True)
            until(lambda: works)  # the engine looked, and could not let it in
        clearer.join()
        assert 2 == len(worker(lambda: stream.result).join().tokens)

    def test_leaves_alone_what_was_taken_since(self, stage, worker):
        """A sequence that is taken and filled meanwhile is not emptied behind it."""
        context = stage().context(sequences=2)
        exclusion = context._node.exclusion
        for _ in range(20):  # who of the two comes first is chance
            with context.get_sequence() as old:
                old.evaluate([1, 2])
                with context._use():
                    clearer = worker(lambda: suppressed(context.clear))
                    until(lambda: exclusion._waiting)
                    new = context.get_sequence()
                    filler = worker(lambda new=new: new.evaluate([7, 8, 9]))
                clearer.join(), filler.join()
                with new:
                    assert truthful(new)


def suppressed(call):
    with suppress(BusyError):
        call()


def test_a_new_context_is_asked_first(stage, monkeypatch):
    """What must be known of a new context is asked before others can dispose it."""
    stage = stage()
    living = []

    def can_shift(context):
        living.extend(resource.kind for resource in stage.llama.resources())
        return True

    monkeypatch.setattr(NullContext, "can_shift", property(can_shift))
    stage.context()
    assert ["llama", "model"] == living


def test_a_dropped_stream_edits_nothing(stage, worker):
    """Dropped while its step waits for the context, a stream leaves the cache alone."""
    stage = stage()
    sequence, other = sequences(stage, 2)
    sequence.evaluate([1, 2, 3, 4, 5])
    other.evaluate([9, 9, 9])
    exclusion = sequence.context._node.exclusion
    with stage.script.gate("remove") as gate:
        editor = worker(lambda: other.truncate(1))
        gate.wait_entered()
        stream = sequence.generate([1, 7, 7], max_tokens=2)
        until(lambda: exclusion._waiting)
        del stream
    editor.join()
    sequence.evaluate([6])
    assert [1, 2, 3, 4, 5, 6] == sequence.tokens
    assert truthful(sequence)


def test_wrong_guesses_are_gone_at_the_end(stage, worker):
    """Who was told the end of an answer finds no wrong guess in the sequence."""
    stage = stage(answer="ab")
    sequence = stage.sequence()
    prompt = stage.tokens("tell")
    with stage.script.gate("remove", nth=2) as gate:
        stream = sequence.generate(prompt, predictor=Liar())
        gate.wait_entered()  # those after the last token are being removed
        assert not stream._generation.mailbox.closed
    assert "ab" == stream.result.text
    assert [*prompt, *stage.tokens("ab")] == sequence.tokens


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_a_complete_answer_that_nobody_read(stage, end):
    """Given up before it was read, an answer has no result, even if it is complete."""
    stream = stage().sequence().generate([65], max_tokens=2)
    until(lambda: stream._generation.mailbox.closed)
    getattr(stream, end)()
    with suppress(OperationCancelledError):
        assert [] == list(stream)
    with pytest.raises(NoResultError):
        _ = stream.result


def test_a_shift_that_cannot_be_looked_at(stage):
    """If the engine fails right after it moved tokens, nothing is believed of them."""
    stage = stage()
    sequence = stage.sequence(context_size=16)
    stage.script.fail("bounds")
    stream = sequence.generate([65] * 14, max_tokens=30, overflow=Shift())
    with suppress(Exception):
        list(stream)
    assert truthful(sequence)
