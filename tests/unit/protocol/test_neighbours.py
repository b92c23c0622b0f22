"""What happens to one sequence changes nothing for those beside it."""

from __future__ import annotations

import pytest

from llmcore.errors import DecodeError, DisposedError, OperationCancelledError
from llmcore.values import CacheKind

from .kit import fresh_answer, numbers, sequences, truthful

KINDS = [
    CacheKind.FULL,
    CacheKind.SLIDING_WINDOW,
    CacheKind.RECURRENT,
    CacheKind.HYBRID,
]
COUNT = 6


def three(stage):
    """Three sequences of one context, and a prompt for each."""
    made = sequences(stage, 3)
    prompts = [stage.tokens(text) for text in ("one two", "three", "four five six")]
    return made, prompts


def begin(made, prompts, **options):
    return [
        one.generate(prompt, max_tokens=COUNT, **options)
        for one, prompt in zip(made, prompts, strict=True)
    ]


class TestFailure:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("applied", [0, 1, 2, 9])
    @pytest.mark.parametrize("step", [1, 3])
    def test_one_fails(self, stage, kind, applied, step):
        """A sequence that fails in a shared batch fails alone; all others are right."""
        stage = stage(cache_kind=kind, window=6)
        made, prompts = three(stage)
        with stage.script.gate("decode") as gate:
            hold = made[0].generate(prompts[0], max_tokens=1)
            gate.wait_entered()
            streams = begin(made[1:], prompts[1:])
            stage.script.fail(
                "decode", nth=step, times=None, applied=applied, sequence=1
            )
        with pytest.raises(DecodeError, match="scripted failure"):
            list(streams[0])
        assert fresh_answer(stage, prompts[0], 1) == hold.result.tokens
        assert fresh_answer(stage, prompts[2], COUNT) == streams[1].result.tokens
        assert all(truthful(one) for one in made)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("applied", [0, 1, 2, 9])
    @pytest.mark.parametrize("step", [1, 2, 3, 5])
    def test_a_failure_that_passes(self, stage, kind, applied, step):
        """A shared batch that fails once is made good, and no answer is different."""
        stage = stage(cache_kind=kind, window=6)
        made, prompts = three(stage)
        with stage.script.gate("decode") as gate:
            streams = begin(made[:1], prompts[:1])
            gate.wait_entered()
            streams += begin(made[1:], prompts[1:])
            stage.script.fail("decode", nth=step, applied=applied, sequence=1)
        for stream, prompt in zip(streams, prompts, strict=True):
            assert fresh_answer(stage, prompt, COUNT) == stream.result.tokens
        assert all(truthful(one) for one in made)

    @pytest.mark.parametrize("kind", KINDS)
    def test_who_failed_can_go_on(self, stage, kind):
        """After its failure a sequence answers as a fresh one."""
        stage = stage(cache_kind=kind, window=6)
        made, prompts = three(stage)
        stage.script.fail("decode", nth=4, applied=1, sequence=0)
        with pytest.raises(DecodeError):
            list(made[0].generate(prompts[0], max_tokens=COUNT))
        assert truthful(made[0])
        again = made[0].generate(prompts[0], max_tokens=COUNT).result.tokens
        assert fresh_answer(stage, prompts[0], COUNT) == again


class TestAbort:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("step", [1, 2, 4])
    def test_a_shared_batch(self, stage, kind, step):
        """An abort that hits a shared batch changes no answer of it."""
        stage = stage(cache_kind=kind, window=6)
        made, prompts = three(stage)
        with stage.script.gate("decode") as first:
            streams = begin(made[:1], prompts[:1])
            first.wait_entered()
            streams += begin(made[1:], prompts[1:])
            gate = stage.script.gate("decode", nth=step)
        with gate:
            gate.wait_entered()
            assert {0, 1, 2} == set(stage.ledger.batches[-1].sequences)
            made[0]._engine.loop._native.abort(True)
            gate.wait_entered(count=2)
        for stream, prompt in zip(streams, prompts, strict=True):
            assert fresh_answer(stage, prompt, COUNT) == stream.result.tokens
        assert all(truthful(one) for one in made)

    def test_a_cancel_does_not_stop_the_others_step(self, stage):
        """Cancelling one of a shared batch lets the step end for the others."""
        stage = stage()
        made, prompts = three(stage)
        with stage.script.gate("decode") as first:
            streams = begin(made[:1], prompts[:1])
            first.wait_entered()
            streams += begin(made[1:], prompts[1:])
            gate = stage.script.gate("decode")
        with gate:
            gate.wait_entered()
            streams[1].cancel()
        with pytest.raises(OperationCancelledError):
            list(streams[1])
        assert fresh_answer(stage, prompts[0], COUNT) == streams[0].result.tokens
        assert fresh_answer(stage, prompts[2], COUNT) == streams[2].result.tokens


class TestDisposal:
    def test_queued_work_never_reaches_the_engine(self, stage, worker):
        """Work of a disposed sequence is not done, and its place is free at once."""
        stage = stage()
        running, doomed = sequences(stage, 2)
        context = running.context
        with stage.script.gate("decode") as gate:
            stream = running.generate(stage.tokens("run"), max_tokens=COUNT)
            gate.wait_entered()
            dead = doomed.generate([66] * 5)
            worker(doomed.dispose).join()  # while the engine is inside a step
            assert 1 == context.sequences_left
            heir = stage.keep(context.get_sequence())
        with pytest.raises(DisposedError, match=r"sequence#"):
            list(dead)
        heir.evaluate([67])
        assert not any(66 in batch.tokens for batch in stage.ledger.batches)
        assert fresh_answer(stage, stage.tokens("run"), COUNT) == stream.result.tokens

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_the_middle_of_a_shared_step(self, stage, worker, kind):
        """A sequence disposed inside a shared step leaves the others their answers."""
        stage = stage(cache_kind=kind, window=6)
        made, prompts = three(stage)
        context = made[0].context
        with stage.script.gate("decode") as first:
            streams = begin(made[:1], prompts[:1])
            first.wait_entered()
            streams += begin(made[1:], prompts[1:])
            gate = stage.script.gate("decode", nth=2)
        with gate:
            gate.wait_entered()
            disposal = worker(made[1].dispose)
            while not made[1].disposed:
                pass
        disposal.join()
        assert disposal.error is None
        with pytest.raises(DisposedError):
            list(streams[1])
        heir = stage.keep(context.get_sequence())
        for n in (0, 2):
            wanted = fresh_answer(stage, prompts[n], COUNT)
            assert wanted == streams[n].result.tokens
        assert fresh_answer(stage, prompts[1], COUNT) == (
            heir.generate(prompts[1], max_tokens=COUNT).result.tokens
        )

    def test_a_slot_changes_hands_while_others_run(self, stage):
        """Many short lives beside a long answer: each answers as if it were alone."""
        stage = stage()
        context = stage.context(sequences=2, batch_size=8)
        running = stage.keep(context.get_sequence())
        stream = running.generate(stage.tokens("long"), max_tokens=60)
        prompt = stage.tokens("short")
        for _ in range(10):
            next(stream)
            with context.get_sequence() as brief:
                answer = brief.generate(prompt, max_tokens=2)
                next(answer)  # and the rest is left unread
        assert fresh_answer(stage, stage.tokens("long"), 60) == stream.result.tokens
        assert all(set(numbers(b)) <= {0, 1} for b in stage.ledger.batches)
