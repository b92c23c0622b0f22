"""How the sequences of a context share the engine's steps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from .kit import fresh_answer, numbers, sequences

# With so few tokens nobody need read: the engine runs that far ahead.
UNREAD = 6


class TestTogether:
    def test_those_who_wait_share_one_call(self, stage):
        """All sequences that wait go into one decode call."""
        stage = stage()
        first, *others = sequences(stage, 5)
        with stage.script.gate("decode") as gate:
            streams = [first.generate(stage.tokens("first"), max_tokens=UNREAD)]
            gate.wait_entered()
            for n, one in enumerate(others):
                prompt = stage.tokens(f"number {n}")
                streams.append(one.generate(prompt, max_tokens=UNREAD))
        answers = [stream.result.tokens for stream in streams]
        assert {0, 1, 2, 3, 4} == set(stage.ledger.batches[1].sequences)
        # The first began one step before the others, and ended one before them.
        assert UNREAD + 1 == stage.decodes()
        assert fresh_answer(stage, stage.tokens("number 2"), UNREAD) == answers[3]

    def test_evaluations_by_hand_share_it_too(self, stage, worker):
        """What is evaluated by hand from other threads joins the same call."""
        stage = stage()
        first, *others = sequences(stage, 4)
        with stage.script.gate("decode") as gate:
            hands = [worker(lambda: first.evaluate([1, 2]))]
            gate.wait_entered()
            inbox = first._engine.loop._inbox
            for one in others:
                hands.append(worker(lambda one=one: one.evaluate([3, 4, 5])))
            while len(inbox) < len(others):
                pass
        for hand in hands:
            hand.join()
        assert {1: 3, 2: 3, 3: 3} == numbers(stage.ledger.batches[1])
        assert 2 == stage.decodes()


class TestPrompts:
    def make(self, stage, prompt=20, **params):
        """A short answer runs and a long prompt comes; all batches after that."""
        talker, reader = sequences(stage, 2, **params)
        with stage.script.gate("decode") as gate:
            talk = talker.generate(stage.tokens("a"), max_tokens=4)
            gate.wait_entered()
            read = reader.generate([65] * prompt, max_tokens=1)
        assert 4 == len(talk.result.tokens)
        assert 1 == len(read.result.tokens)
        return [numbers(batch) for batch in stage.ledger.batches]

    def test_an_answer_goes_on_while_a_prompt_is_read(self, stage):
        """Each step has the answer's token first; the prompt gets what is left."""
        assert [
            {0: 1},
            {0: 1, 1: 7},
            {0: 1, 1: 7},
            {0: 1, 1: 6},
        ] == self.make(stage(), batch_size=8, micro_batch_size=8)

    def test_nobody_who_reads_waits_for_more_than_a_micro_batch(self, stage):
        """A prompt goes in micro-batches beside an answer, in whole batches alone."""
        assert [
            {0: 1},
            {0: 1, 1: 3},
            {0: 1, 1: 3},
            {0: 1, 1: 3},
            {1: 16},
            {1: 5},
        ] == self.make(stage(), prompt=30, batch_size=16, micro_batch_size=4)

    def test_a_long_prompt_alone_goes_in_whole_batches(self, stage):
        """Nobody else is there: no step is smaller than it need be."""
        stage = stage()
        sequence = stage.sequence(batch_size=16, micro_batch_size=4)
        sequence.evaluate([65] * 40)
        assert [16, 16, 8] == [len(b.tokens) for b in stage.ledger.batches]

    def test_first_in_first_out(self, stage):
        """With fifo one prompt is read to its end before the next."""
        stage = stage()
        first, second, third = sequences(
            stage, 3, scheduling="fifo", batch_size=8, micro_batch_size=8
        )
        with stage.script.gate("decode") as gate:
            streams = [first.generate([65], max_tokens=1)]
            gate.wait_entered()
            streams.append(second.generate([66] * 12, max_tokens=1))
            streams.append(third.generate([67] * 12, max_tokens=1, priority=1))
        assert [1, 1, 1] == [len(stream.result.tokens) for stream in streams]
        batches = [numbers(batch) for batch in stage.ledger.batches]
        assert [{0: 1}, {2: 8}, {1: 4, 2: 4}, {1: 8}] == batches


class TestReaders:
    def test_an_unread_stream_stops_after_a_few_tokens(self, stage):
        """The engine runs a few tokens ahead of a reader, not the whole answer."""
        stage = stage()
        idle, busy = sequences(stage, 2)
        stream = idle.generate(stage.tokens("idle"), max_tokens=60)
        for _ in range(30):  # each is a step, and the unread one could join it
            busy.evaluate([65])
        assert sum(0 in b.sequences for b in stage.ledger.batches) <= 10
        assert fresh_answer(stage, stage.tokens("idle"), 60) == stream.result.tokens

    def test_a_reader_that_stops_holds_up_nobody(self, stage):
        """A neighbour's answer comes to its end while a stream is not read."""
        stage = stage()
        idle, busy = sequences(stage, 2)
        unread = idle.generate(stage.tokens("idle"), max_tokens=60)
        next(unread)
        answer = busy.generate(stage.tokens("busy"), max_tokens=60).result.tokens
        assert fresh_answer(stage, stage.tokens("busy"), 60) == answer
        assert fresh_answer(stage, stage.tokens("idle"), 60) == unread.result.tokens

    def test_many_threads_each_get_their_own_answer(self, stage, worker):
        """Eight readers in eight threads get what each would have got alone."""
        stage = stage()
        prompts = [stage.tokens(f"thread {n}") for n in range(8)]
        hands = [
            worker(lambda s=s, p=p: s.generate(p, max_tokens=40).result.tokens)
            for s, p in zip(sequences(stage, 8), prompts, strict=True)
        ]
        answers = [hand.join() for hand in hands]
        assert [fresh_answer(stage, p, 40) for p in prompts] == answers


class Broken:
    """A policy that says what it was told to say, from its second step on."""

    def __init__(self, say):
        self.say = say
        self.steps = 0

    def share(self, waiting, budget):
        self.steps += 1
        if self.steps == 1:
            return [1 for _ in waiting]
        return self.say(waiting)


class TestOwnPolicy:
    def test_it_decides(self, stage):
        """A policy of the caller says who gets how much."""

        class Slow:
            def share(self, waiting, budget):
                return [1] + [0] * (len(waiting) - 1)

        stage = stage()
        stage.sequence(scheduling=Slow()).evaluate([1, 2, 3])
        assert [1, 1, 1] == [len(batch.tokens) for batch in stage.ledger.batches]

    @pytest.mark.parametrize(
        ("say", "error"),
        [
            (lambda waiting: [], ValueError),
            (lambda waiting: [0] * len(waiting), ValueError),
            (lambda waiting: [10**6] * len(waiting), ValueError),
            (lambda waiting: {}["key"], KeyError),
        ],
    )
    def test_a_broken_one_is_the_callers_error(self, stage, say, error):
        """What a broken policy does wrong its caller hears, and can go on."""
        stage = stage()
        policy = Broken(say)
        sequence = stage.sequence(scheduling=policy)
        with pytest.raises(error):
            _ = sequence.generate(stage.tokens("abc"), max_tokens=5).result
        with pytest.raises(error):
            sequence.evaluate([1])
        policy.say = lambda waiting: [one.tokens for one in waiting]
        prompt = stage.tokens("abc")
        answer = sequence.generate(prompt, max_tokens=8).result.tokens
        assert fresh_answer(stage, prompt) == answer


class TestExclusion:
    @pytest.mark.parametrize("scope", ["context", "model", "device", "process"])
    def test_two_contexts_make_progress(self, stage, worker, scope):
        """Whatever excludes whom, both contexts get on, and no calls overlap."""
        stage = stage(exclusion=scope)
        a, b = stage.sequence(), stage.sequence()
        prompt = stage.tokens("both")
        hands = [
            worker(lambda s=s: s.generate(prompt, max_tokens=40).result.tokens)
            for s in (a, b)
        ]
        answers = [hand.join() for hand in hands]
        assert [fresh_answer(stage, prompt, 40)] * 2 == answers

    def test_contexts_may_be_inside_at_once(self, stage, worker):
        """Where only calls on one context exclude each other, two can be inside."""
        stage = stage(exclusion="context")
        a, b = stage.sequence(), stage.sequence()
        with stage.script.gate("decode") as gate:
            hands = [worker(lambda s=s: s.evaluate([1])) for s in (a, b)]
            gate.wait_entered(count=2)
        for hand in hands:
            hand.join()

    @pytest.mark.parametrize("scope", ["model", "process"])
    def test_contexts_take_turns(self, stage, worker, scope):
        """Where calls on a model exclude each other, two contexts alternate."""
        stage = stage(exclusion=scope)
        a, b = stage.sequence(), stage.sequence()
        with stage.script.gate("decode") as gate:
            streams = [a.generate([65], max_tokens=7)]
            gate.wait_entered()
            streams.append(b.generate([66], max_tokens=7))
        assert [7, 7] == [len(stream.result.tokens) for stream in streams]
        calls = [e.id for e in stage.ledger.events if e.op == "decode"]
        changes = sum(x != y for x, y in pairwise(calls))
        assert changes > 2
