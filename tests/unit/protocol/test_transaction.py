"""`Sequence.transaction`: all of a block, or nothing."""

from __future__ import annotations

import pytest

from llmcore.errors import DisposedError, OperationCancelledError, SequenceBusyError
from llmcore.params import Shift
from llmcore.values import CacheKind

from .kit import fresh_answer, truthful

KINDS = [
    CacheKind.FULL,
    CacheKind.SLIDING_WINDOW,
    CacheKind.RECURRENT,
    CacheKind.HYBRID,
]


class Boom(Exception):
    pass


def evaluate(sequence):
    sequence.evaluate([70, 71])


def truncate(sequence):
    sequence.truncate(3)


def clear(sequence):
    sequence.clear()


def generate(sequence):
    sequence.generate([*sequence.tokens, 70], max_tokens=5).result  # noqa: B018


def another(sequence):
    sequence.generate([90, 91, 92], max_tokens=5).result  # noqa: B018


def cancel(sequence):
    stream = sequence.generate([*sequence.tokens, 70])
    next(stream)
    stream.cancel()
    with pytest.raises(OperationCancelledError):
        list(stream)


def all_of_them(sequence):
    for step in (evaluate, generate, truncate, another, clear, evaluate):
        step(sequence)


STEPS = [evaluate, truncate, clear, generate, another, cancel, all_of_them]
HELD = list(range(65, 75))


class TestRollback:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("step", STEPS)
    def test_whatever_was_done(self, stage, kind, step):
        """After a block that raised, the sequence holds what it held, and is right."""
        stage = stage(cache_kind=kind, window=6)
        sequence = stage.sequence()
        sequence.evaluate(HELD)
        with pytest.raises(Boom), sequence.transaction():
            step(sequence)
            raise Boom
        assert HELD == sequence.tokens
        assert truthful(sequence)
        prompt = [*HELD, 80]
        result = sequence.generate(prompt, max_tokens=8).result
        assert 1 == result.cache.evaluated
        assert fresh_answer(stage, prompt) == result.tokens

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("step", STEPS)
    def test_a_block_that_ends_well(self, stage, kind, step):
        """A block that does not raise keeps all that it did."""
        stage = stage(cache_kind=kind, window=6)
        inside, plain = stage.sequence(), stage.sequence()
        for one in (inside, plain):
            one.evaluate(HELD)
        with inside.transaction() as same:
            assert same is inside
            step(inside)
        if step is not cancel:  # how far that came is chance
            step(plain)
            assert plain.tokens == inside.tokens
        assert truthful(inside)

    def test_a_shift(self, stage):
        """What was dropped by a shift is evaluated again."""
        stage = stage()
        sequence = stage.sequence(context_size=16)
        sequence.evaluate(HELD)
        with pytest.raises(Boom), sequence.transaction():
            sequence.generate([*HELD, 70], max_tokens=20, overflow=Shift(keep=1)).result  # noqa: B018
            raise Boom
        assert HELD == sequence.tokens
        assert truthful(sequence)

    def test_an_empty_sequence(self, stage):
        """A sequence that was empty is empty again."""
        sequence = stage().sequence()
        with pytest.raises(Boom), sequence.transaction():
            sequence.evaluate([1])
            raise Boom
        assert [] == sequence.tokens

    @pytest.mark.parametrize("step", STEPS)
    def test_logits_go_back_too(self, stage, step):
        """After a rollback the logits are those of before."""
        sequence = stage().sequence()
        sequence.evaluate(HELD)
        before = sequence.logits
        with pytest.raises(Boom), sequence.transaction():
            step(sequence)
            raise Boom
        assert list(before) == list(sequence.logits)

    def test_random_numbers_go_back_too(self, stage):
        """Drawing by hand goes on as if the block had not been."""
        stage = stage()
        plain, other = stage.sequence(), stage.sequence()
        params = {"temperature": 1.0, "seed": 3}

        def draw(sequence, count):
            drawn = []
            for _ in range(count):
                drawn.append(sequence.sample(**params))
                sequence.evaluate(drawn[-1:])
            return drawn

        for one in (plain, other):
            one.evaluate([65])
        wanted = draw(plain, 9)
        drawn = draw(other, 4)
        with pytest.raises(Boom), other.transaction():
            draw(other, 3)
            raise Boom
        assert wanted == drawn + draw(other, 5)


class TestNested:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_inner_one_alone(self, stage, kind):
        """An inner block that raised leaves what the outer one did before it."""
        stage = stage(cache_kind=kind, window=6)
        sequence = stage.sequence()
        sequence.evaluate(HELD)
        with sequence.transaction():
            sequence.evaluate([70])
            with pytest.raises(Boom), sequence.transaction():
                sequence.evaluate([71])
                raise Boom
            sequence.evaluate([72])
        assert [*HELD, 70, 72] == sequence.tokens
        assert truthful(sequence)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_outer_one_undoes_both(self, stage, kind):
        """An outer block that raises undoes an inner one that ended well."""
        stage = stage(cache_kind=kind, window=6)
        sequence = stage.sequence()
        sequence.evaluate(HELD)
        with pytest.raises(Boom), sequence.transaction():
            sequence.truncate(5)
            with sequence.transaction():
                sequence.evaluate([71])
            raise Boom
        assert HELD == sequence.tokens
        assert truthful(sequence)


class TestInTheWay:
    def test_a_stream_that_still_runs(self, stage):
        """A stream from inside that still runs is told of, not rolled over."""
        sequence = stage().sequence()
        sequence.evaluate(HELD)
        streams = []
        with pytest.raises(SequenceBusyError), sequence.transaction():
            streams.append(sequence.generate([*HELD, 70]))
            raise Boom
        streams.pop().close()

    def test_a_disposed_sequence(self, stage):
        """If the sequence goes inside, the caller hears what he raised."""
        sequence = stage().sequence()
        with pytest.raises(Boom), sequence.transaction():
            sequence.dispose()
            raise Boom
        with pytest.raises(DisposedError):
            _ = sequence.tokens
