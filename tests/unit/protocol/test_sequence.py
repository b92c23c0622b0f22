"""`Sequence` and the loop under it: what is kept, what is evaluated, what survives."""

from __future__ import annotations

import pytest

from llmcore.errors import (
    CapabilityError,
    ContextOverflowError,
    DecodeError,
    DisposedError,
    NoSequenceLeftError,
    OperationCancelledError,
    SequenceBusyError,
)
from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability

ALL = NullScript().capabilities


def fresh_answer(stage, prompt, count=8, **params):
    """What an empty sequence answers: the truth that every reuse must repeat."""
    with stage.context(**params) as context, context.get_sequence() as sequence:
        return sequence.generate(prompt, max_tokens=count).result.tokens


class TestReuse:
    def test_a_longer_prompt_evaluates_only_what_is_new(self, stage):
        """Of a prompt that goes on from the last one only the new tokens are read."""
        stage = stage()
        sequence = stage.sequence()
        first = sequence.generate(stage.tokens("hello"), max_tokens=4).result
        longer = [*stage.tokens("hello"), *first.tokens, *stage.tokens(" more")]
        cache = sequence.generate(longer, max_tokens=1).result.cache
        # The last token drawn was never evaluated.
        assert (len(longer) - 6, 6) == (cache.reused, cache.evaluated)

    def test_the_same_prompt_evaluates_one_token(self, stage):
        """A prompt that is cached to its end still evaluates its last token."""
        stage = stage()
        sequence = stage.sequence()
        prompt = stage.tokens("again")
        first = sequence.generate(prompt, max_tokens=5).result
        second = sequence.generate(prompt, max_tokens=5).result
        assert first.tokens == second.tokens
        assert 1 == second.cache.evaluated

    @pytest.mark.parametrize("kind", list(set(CacheKind) - {CacheKind.NONE}))
    @pytest.mark.parametrize("lie", [False, True, "stay"])
    def test_reuse_never_changes_an_answer(self, stage, kind, lie):
        """Whatever the cache can do or says it did, the answer is a fresh one's."""
        stage = stage(cache_kind=kind, lie=lie, window=6)
        sequence = stage.sequence()
        for text in ["one two three", "one two four", "one", "one two three five", "x"]:
            prompt = stage.tokens(text)
            answer = sequence.generate(prompt, max_tokens=8).result
            assert fresh_answer(stage, prompt) == answer.tokens

    def test_the_report_says_why_reuse_stopped(self, stage):
        """The cache report names the first different token."""
        stage = stage()
        sequence = stage.sequence()
        sequence.evaluate(stage.tokens("abcdef"))
        cache = sequence.generate(stage.tokens("abcxyz"), max_tokens=1).result.cache
        assert "the first difference is at token 3" == cache.reason


class TestFailure:
    @pytest.mark.parametrize("applied", [0, 1, 3])
    def test_a_failed_evaluation_leaves_the_sequence_as_it_was(self, stage, applied):
        """A decode that fails half-way adds nothing, and the sequence goes on right."""
        stage = stage()
        sequence = stage.sequence()
        sequence.evaluate(stage.tokens("abc"))
        stage.script.fail("decode", applied=applied)
        with pytest.raises(DecodeError):
            sequence.evaluate(stage.tokens("defgh"))
        assert stage.tokens("abc") == sequence.tokens
        prompt = stage.tokens("abcdefgh")
        assert fresh_answer(stage, prompt) == (
            sequence.generate(prompt, max_tokens=8).result.tokens
        )

    @pytest.mark.parametrize("kind", [CacheKind.RECURRENT, CacheKind.HYBRID])
    def test_a_cache_without_removal_is_right_after_a_failure(self, stage, kind):
        """Where a part cannot be dropped, what the engine really holds decides."""
        stage = stage(cache_kind=kind)
        sequence = stage.sequence()
        sequence.evaluate(stage.tokens("abc"))
        stage.script.fail("decode", applied=2)
        with pytest.raises(DecodeError):
            sequence.evaluate(stage.tokens("defgh"))
        prompt = stage.tokens("abcdefgh")
        assert fresh_answer(stage, prompt) == (
            sequence.generate(prompt, max_tokens=8).result.tokens
        )

    def test_a_failing_sequence_leaves_its_neighbour_alone(self, stage):
        """The failure of one sequence changes nothing for another."""
        stage = stage()
        context = stage.context(sequences=2)
        good = stage.keep(context.get_sequence())
        bad = stage.keep(context.get_sequence())
        stream = good.generate(stage.tokens("good"), max_tokens=30)
        next(stream)
        stage.script.fail("decode", applied=1, sequence=1, times=None)
        with pytest.raises(DecodeError):
            bad.evaluate(stage.tokens("bad"))
        assert fresh_answer(stage, stage.tokens("good"), 30) == stream.result.tokens

    def test_a_stray_abort_is_made_good(self, stage, worker):
        """An abort that was meant for somebody else does not end an evaluation."""
        stage = stage()
        sequence = stage.sequence()
        with stage.script.gate("decode") as gate:
            task = worker(lambda: sequence.evaluate(stage.tokens("abcdef")))
            gate.wait_entered()
            sequence._engine.loop._native.abort(True)
            gate.wait_entered(count=2)  # it came back by itself and is tried again
        task.join()
        assert task.error is None
        assert stage.tokens("abcdef") == sequence.tokens


class TestLimits:
    def test_more_than_a_batch_is_split(self, stage):
        """Input longer than the batch size is evaluated in several calls."""
        stage = stage()
        sequence = stage.sequence(batch_size=4)
        sequence.evaluate(stage.tokens("abcdefghij"))
        assert 3 == stage.decodes()
        assert 10 == sequence.position

    def test_what_does_not_fit_is_refused_before_the_engine(self, stage):
        """Too many tokens name both numbers, change nothing and call nothing."""
        stage = stage()
        sequence = stage.sequence(context_size=8)
        sequence.evaluate(stage.tokens("abcde"))
        calls = stage.decodes()
        with pytest.raises(ContextOverflowError) as caught:
            sequence.evaluate(stage.tokens("fghi"))
        assert (9, 8) == (caught.value.needed, caught.value.available)
        assert calls == stage.decodes()
        sequence.evaluate(stage.tokens("fgh"))

    def test_a_full_context_ends_the_answer(self, stage):
        """When no more fits, the answer ends and says so."""
        stage = stage()
        sequence = stage.sequence(context_size=8)
        result = sequence.generate(stage.tokens("abcde")).result
        assert "context_full" == result.finish_reason
        # The last token drawn need not fit: nothing follows it.
        assert 4 == len(result.tokens)

    def test_bad_tokens_never_reach_the_engine(self, stage):
        """A token outside the vocabulary is a ValueError without any call."""
        stage = stage()
        sequence = stage.sequence()
        for bad in (-1, stage.model.info.vocab_size, 1.5):
            with pytest.raises(ValueError, match="tokens must be whole numbers"):
                sequence.evaluate([bad])
        assert 0 == stage.decodes()

    def test_no_sequence_left_is_an_error_with_the_fix(self, stage):
        """Taking one sequence too many says how to get more."""
        stage = stage()
        context = stage.context(sequences=2)
        first = stage.keep(context.get_sequence())
        second = stage.keep(context.get_sequence())
        with pytest.raises(NoSequenceLeftError, match="dispose one"):
            context.get_sequence()
        first.dispose()
        assert 1 == context.sequences_left
        assert "LIVE" in repr(stage.keep(context.get_sequence()))
        assert not second.disposed

    def test_dropped_sequences_come_back(self, stage):
        """A sequence that is dropped can be taken again, and warns."""
        context = stage().context(sequences=1)
        with pytest.warns(ResourceWarning, match="sequence#"):
            for _ in range(3):
                context.get_sequence()
            context.get_sequence().dispose()

    def test_truncate_checks_its_range(self, stage):
        """A length that is not there is a ValueError."""
        sequence = stage().sequence()
        with pytest.raises(ValueError, match="length must be between 0 and 0"):
            sequence.truncate(1)


class TestFork:
    @pytest.mark.parametrize("native", [True, False])
    def test_a_fork_is_an_independent_copy(self, stage, native):
        """A copy goes on like the original, which it does not change."""
        removed = set() if native else {Capability.COPY}
        stage = stage(capabilities=ALL - removed)
        sequence = stage.sequence(sequences=2)
        sequence.evaluate(stage.tokens("abc"))
        twin = stage.keep(sequence.fork())
        twin.evaluate(stage.tokens("d"))
        assert stage.tokens("abc") == sequence.tokens
        assert stage.tokens("abcd") == twin.tokens
        assert int(native) == stage.ledger.calls["copy"]
        sequence.evaluate(stage.tokens("d"))
        assert (sequence.logits == twin.logits).all()

    def test_a_fork_that_fails_leaves_nothing(self, stage):
        """If the copy fails its sequence is given back."""
        stage = stage()
        sequence = stage.sequence(sequences=2)
        sequence.evaluate(stage.tokens("abc"))
        stage.script.fail("copy")
        with pytest.raises(Exception, match="scripted failure of copy"):
            sequence.fork()
        assert 1 == sequence.context.sequences_left


class TestByHand:
    @pytest.mark.parametrize(
        "params",
        [{}, {"temperature": 0.9, "seed": 7}, {"repeat_penalty": 1.5, "seed": 1}],
    )
    def test_sample_and_evaluate_repeat_generate(self, stage, params):
        """A loop by hand draws what `generate` draws."""
        stage = stage()
        prompt = stage.tokens("by hand")
        sequence = stage.sequence(sequences=2)
        wanted = sequence.generate(prompt, max_tokens=12, **params).result.tokens
        hand = stage.keep(sequence.context.get_sequence())
        hand.evaluate(prompt)
        drawn = []
        for _ in wanted:
            drawn.append(hand.sample(**params))
            hand.evaluate(drawn[-1:])
        assert wanted == tuple(drawn)

    def test_logits_need_an_evaluation(self, stage):
        """Asking for logits before anything was evaluated says what to do."""
        sequence = stage().sequence()
        with pytest.raises(RuntimeError, match=r"call evaluate\(\) first"):
            sequence.sample()

    def test_clearing_the_context_voids_logits(self, stage):
        """After the context was cleared a sequence is empty and has no logits."""
        stage = stage()
        sequence = stage.sequence()
        sequence.evaluate(stage.tokens("abc"))
        sequence.context.clear()
        assert [] == sequence.tokens
        with pytest.raises(RuntimeError):
            _ = sequence.logits

    def test_an_undeclared_capability_is_refused(self, stage):
        """Logits on a backend without them are a CapabilityError."""
        stage = stage(capabilities=ALL - {Capability.LOGITS})
        sequence = stage.sequence()
        sequence.evaluate(stage.tokens("abc"))
        with pytest.raises(CapabilityError, match="logits"):
            _ = sequence.logits


class TestOneUser:
    def test_a_second_user_is_refused(self, stage):
        """While a stream runs, everything else on the sequence is refused."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate(stage.tokens("abc"))
        for use in (
            lambda: sequence.generate([1]),
            lambda: sequence.evaluate([1]),
            lambda: sequence.truncate(0),
            sequence.fork,
        ):
            with pytest.raises(SequenceBusyError, match=r"sequence#\d+ is in use"):
                use()
        stream.close()
        sequence.evaluate([1])

    def test_dropping_a_stream_frees_its_sequence_at_once(self, stage):
        """After the last reference to a stream went, the sequence can be used."""
        stage = stage()
        sequence = stage.sequence()
        for _event in sequence.generate(stage.tokens("abc")):
            break
        sequence.evaluate([1])

    def test_clearing_the_context_waits_for_no_one(self, stage):
        """A context with a running stream is not cleared."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate(stage.tokens("abc"), max_tokens=4)
        next(stream)
        with pytest.raises(Exception, match="in use"):
            sequence.context.clear()
        assert fresh_answer(stage, stage.tokens("abc"), 4) == stream.result.tokens


class TestEnding:
    def test_cancel_inside_a_long_prompt(self, stage, worker):
        """A cancel ends the evaluation of a prompt at the batch that runs."""
        stage = stage()
        sequence = stage.sequence(batch_size=2)
        with stage.script.gate("decode", nth=3) as gate:
            stream = sequence.generate(stage.tokens("abcdefghijkl"))
            task = worker(lambda: list(stream))
            gate.wait_entered()
            stream.cancel()
        task.join()
        assert isinstance(task.error, OperationCancelledError)
        assert 3 == stage.decodes()
        prompt = stage.tokens("abcdefghijkl")
        assert fresh_answer(stage, prompt) == (
            sequence.generate(prompt, max_tokens=8).result.tokens
        )

    def test_dispose_ends_a_stream_with_one_error(self, stage, worker):
        """A stream under a disposed model gets one DisposedError and then ends."""
        stage = stage()
        stream = stage.sequence().generate(stage.tokens("abc"))
        next(stream)
        with stage.script.gate("decode") as gate:
            task = worker(lambda: list(stream))
            gate.wait_entered()
            disposal = worker(stage.model.dispose)
        task.join()
        disposal.join()
        assert isinstance(task.error, DisposedError)
        assert "model#" in str(task.error)
        assert [] == list(stream)

    def test_waiting_disposal_lets_the_answer_finish(self, stage, worker):
        """dispose(inflight="wait") returns after the stream came to its end."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate(stage.tokens("abc"), max_tokens=30)
        next(stream)
        disposal = worker(lambda: stage.model.dispose(inflight="wait"))
        while not stage.model.disposed:
            pass
        with pytest.raises(DisposedError):
            stage.model.create_context()
        assert 30 == len(stream.result.tokens)
        disposal.join()
        assert disposal.error is None
        assert sequence.disposed
