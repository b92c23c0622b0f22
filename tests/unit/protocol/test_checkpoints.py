"""Places to go back to, for caches that cannot drop a part of themselves."""

from __future__ import annotations

import pytest

from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability

from .kit import fresh_answer, sequences, truthful

KINDS = [CacheKind.SLIDING_WINDOW, CacheKind.RECURRENT, CacheKind.HYBRID]
COUNT = 8


def bytes_used(sequence):
    return sequence._engine.cache.checkpoint_bytes


def counted(sequence):
    return sum(len(c.state) for c in sequence._slot.checkpoints)


class TestReuse:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_prompt_twice(self, stage, kind):
        """The same prompt again evaluates its last token only, and answers the same."""
        stage = stage(cache_kind=kind, window=6)
        sequence = stage.sequence()
        prompt = stage.tokens("a prompt that comes twice")
        first = sequence.generate(prompt, max_tokens=COUNT).result
        second = sequence.generate(prompt, max_tokens=COUNT).result
        assert 1 == second.cache.evaluated
        assert fresh_answer(stage, prompt) == first.tokens == second.tokens
        assert truthful(sequence)

    @pytest.mark.parametrize("kind", KINDS)
    def test_another_question_after_the_same_text(self, stage, kind):
        """What differs only after a checkpoint goes back to it, and says so."""
        stage = stage(cache_kind=kind, window=6)
        sequence = stage.sequence()
        start = stage.tokens("the same beginning")
        sequence.generate(start, max_tokens=COUNT).result  # noqa: B018
        prompt = [*start, *stage.tokens(" and more")]
        result = sequence.generate(prompt, max_tokens=COUNT).result
        assert len(start) - 1 == result.cache.matched
        assert "went back to a checkpoint at token" in result.cache.reason
        assert fresh_answer(stage, prompt) == result.tokens

    def test_a_full_cache_needs_none(self, stage):
        """A cache that can drop its end keeps no checkpoints."""
        stage = stage()
        sequence = stage.sequence()
        sequence.generate([65] * 9, max_tokens=3).result  # noqa: B018
        assert 0 == bytes_used(sequence)
        assert 0 == stage.ledger.calls["save_state"]

    def test_truncate_goes_back_to_one(self, stage):
        """A truncation keeps what the last checkpoint before it holds."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        sequence = stage.sequence()
        sequence.generate([65] * 9, max_tokens=5).result  # noqa: B018
        assert 8 == sequence.truncate(10)
        assert [65] * 8 == sequence.tokens
        assert 0 == sequence.truncate(7)
        assert truthful(sequence)


class TestBounds:
    @pytest.mark.parametrize("limit", [0, 1, 200, 700])
    def test_they_never_use_more(self, stage, limit):
        """However many prompts come, the saved states stay within their bytes."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        made = sequences(stage, 2, checkpoint_bytes=limit)
        for n in range(6):
            for one in made:
                prompt = stage.tokens(f"{n} prompt")
                answer = one.generate(prompt, max_tokens=4).result.tokens
                assert fresh_answer(stage, prompt, 4) == answer
                assert bytes_used(one) <= limit
                assert sum(map(counted, made)) == bytes_used(one)

    def test_the_oldest_go_first(self, stage):
        """With room for one state the newest is kept."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        first, second = sequences(stage, 2, checkpoint_bytes=200)
        for one in (first, second):
            one.generate([65] * 9, max_tokens=1).result  # noqa: B018
        assert [0, 1] == [len(one._slot.checkpoints) for one in (first, second)]

    def test_they_go_with_their_sequence(self, stage):
        """A disposed or cleared sequence leaves no bytes behind."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        first, second = sequences(stage, 2)
        for one in (first, second):
            one.generate([65] * 9, max_tokens=1).result  # noqa: B018
        first.dispose()
        second.clear()
        assert 0 == bytes_used(second)


class TestFailure:
    def test_a_state_that_cannot_be_saved_is_left_out(self, stage):
        """A failed save is one place less to go back to, and nothing else."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        sequence = stage.sequence()
        stage.script.fail("save_state", times=None)
        prompt = stage.tokens("unsaved")
        answers = [
            sequence.generate(prompt, max_tokens=COUNT).result.tokens for _ in range(2)
        ]
        assert [fresh_answer(stage, prompt)] * 2 == answers
        assert 0 == bytes_used(sequence)

    def test_a_state_that_cannot_be_loaded(self, stage):
        """A failed load fails its answer; the next one is right again."""
        stage = stage(cache_kind=CacheKind.RECURRENT)
        sequence = stage.sequence()
        prompt = stage.tokens("unloaded")
        sequence.generate(prompt, max_tokens=COUNT).result  # noqa: B018
        stage.script.fail("load_state")
        with pytest.raises(Exception, match="scripted failure of load_state"):
            list(sequence.generate(prompt, max_tokens=COUNT))
        assert truthful(sequence)
        answer = sequence.generate(prompt, max_tokens=COUNT).result.tokens
        assert fresh_answer(stage, prompt) == answer

    def test_without_the_capability(self, stage):
        """Where states cannot be saved, all is evaluated again, and is right."""
        stage = stage(
            cache_kind=CacheKind.RECURRENT,
            capabilities=NullScript().capabilities - {Capability.STATE_IO},
        )
        sequence = stage.sequence()
        prompt = stage.tokens("again")
        for _ in range(2):
            result = sequence.generate(prompt, max_tokens=COUNT).result
            assert fresh_answer(stage, prompt) == result.tokens
        assert len(prompt) == result.cache.evaluated
        assert "the cache cannot drop a part of itself" == result.cache.reason
