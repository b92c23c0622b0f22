"""What happens when a sequence, or a conversation, is full."""

from __future__ import annotations

import pytest

import llmcore
from llmcore.errors import CapabilityError, ContextOverflowError
from llmcore.events import Shifted
from llmcore.params import Shift
from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability

from .kit import truthful


class TestShift:
    def test_it_goes_on(self, stage):
        """The answer goes on beyond the size; the first tokens stay."""
        stage = stage()
        sequence = stage.sequence(context_size=16)
        prompt = list(range(65, 75))
        stream = sequence.generate(prompt, max_tokens=40, overflow=Shift(keep=3))
        shifts = [e for e in stream if isinstance(e, Shifted)]
        result = stream.result
        assert ("max_tokens", 40) == (result.finish_reason, len(result.tokens))
        assert {(3, 6)} == {(one.kept, one.dropped) for one in shifts}
        assert prompt[:3] == sequence.tokens[:3]
        # After them the end of all that was said; the last token was not evaluated.
        rest = sequence.tokens[3:]
        assert [*prompt, *result.tokens][: len(prompt) + 39][-len(rest) :] == rest
        assert truthful(sequence)

    def test_so_many_as_was_said(self, stage):
        """A policy says how many are kept and dropped, each time."""
        sequence = stage().sequence(context_size=16)
        stream = sequence.generate(
            [65] * 10, max_tokens=20, overflow=Shift(keep=0, drop=5)
        )
        shifts = [e for e in stream if isinstance(e, Shifted)]
        assert [Shifted(kept=0, dropped=5)] * 3 == shifts

    def test_a_policy_of_the_caller(self, stage):
        """A callable is given the tokens; None ends the answer."""
        seen = []

        def once(tokens):
            seen.append(tokens)
            return Shift(keep=1, drop=4) if len(seen) == 1 else None

        sequence = stage().sequence(context_size=16)
        result = sequence.generate([65] * 10, overflow=once).result
        assert "context_full" == result.finish_reason
        assert [16, 16] == [len(tokens) for tokens in seen]
        assert 7 + 4 == len(result.tokens)

    @pytest.mark.parametrize(
        ("said", "error", "match"),
        [
            (Shift(keep=16), ValueError, "cannot keep 16 and drop 1 of 16"),
            (Shift(keep=4, drop=12), ValueError, "cannot keep 4 and drop 12"),
            (3, TypeError, "must return a Shift, got 3"),
        ],
    )
    def test_what_cannot_be(self, stage, said, error, match):
        """Numbers that leave nothing, or no Shift at all, end the answer with that."""
        sequence = stage().sequence(context_size=16)
        with pytest.raises(error, match=match):
            list(sequence.generate([65] * 10, overflow=lambda tokens: said))
        assert truthful(sequence)

    @pytest.mark.parametrize("bad", ["drop", 3, None])
    def test_no_policy_at_all(self, stage, bad):
        """What is no policy is refused before anything is evaluated."""
        stage = stage()
        with pytest.raises(ValueError, match="overflow must be 'error'"):
            stage.sequence().generate([65], overflow=bad)
        assert 0 == stage.decodes()

    @pytest.mark.parametrize(
        "script",
        [
            {"capabilities": NullScript().capabilities - {Capability.SHIFT}},
            {"capabilities": NullScript().capabilities - {Capability.PARTIAL_REMOVE}},
            {"cache_kind": CacheKind.RECURRENT},
        ],
    )
    def test_where_it_is_not_declared(self, stage, script):
        """Where positions cannot be moved it is refused before anything runs."""
        stage = stage(**script)
        sequence = stage.sequence()
        with pytest.raises(CapabilityError):
            sequence.generate([65], overflow=Shift())
        assert 0 == stage.decodes()
        sequence.evaluate([1])

    def test_a_failed_shift(self, stage):
        """A shift that fails ends its answer, and leaves no hole."""
        stage = stage()
        sequence = stage.sequence(context_size=16)
        stage.script.fail("shift")
        with pytest.raises(Exception, match="scripted failure of shift"):
            list(sequence.generate([65] * 10, max_tokens=40, overflow=Shift()))
        assert truthful(sequence)
        sequence.evaluate([1])


class TestMovedReuse:
    OLD = tuple(range(65, 85))

    def test_what_follows_a_gap_is_moved(self, stage):
        """With Shift, tokens after a gap are moved instead of evaluated."""
        sequence = stage().sequence()
        sequence.evaluate(self.OLD)
        prompt = [*self.OLD[:3], *self.OLD[8:], 97]
        report = sequence.generate(prompt, max_tokens=1, overflow=Shift()).result.cache
        assert (3, 12, 1) == (report.matched, report.shifted, report.evaluated)
        assert "12 tokens after a gap of 5 were moved" in report.reason
        assert prompt == sequence.tokens
        assert truthful(sequence)

    def test_not_without_being_asked(self, stage):
        """Without Shift nothing is moved: it is an approximation."""
        sequence = stage().sequence()
        sequence.evaluate(self.OLD)
        prompt = [*self.OLD[:3], *self.OLD[8:], 97]
        report = sequence.generate(prompt, max_tokens=1).result.cache
        assert (3, 0, 13) == (report.matched, report.shifted, report.evaluated)


class TestChat:
    def chat(self, stage, overflow, size=256):
        stage = stage(answer="Yes.")
        sequence = stage.sequence(context_size=size)
        return stage.keep(
            llmcore.ChatSession(sequence, system_prompt="Terse.", overflow=overflow)
        )

    def test_error_is_the_default(self, stage):
        """Unless told otherwise a conversation that does not fit is an error."""
        chat = self.chat(stage, "error")
        with pytest.raises(ContextOverflowError):
            for n in range(40):
                chat.prompt(f"question {n}?")
        assert 0 == chat.forgotten

    def test_shorten_goes_on_for_ever(self, stage):
        """The oldest turns are left out, the system message stays, all is history."""
        chat = self.chat(stage, "shorten")
        shown = []
        for n in range(40):
            assert "Yes." == chat.prompt(f"question {n}?", max_tokens=10)
            text = chat.sequence.context.model.detokenize(chat.sequence.tokens)
            assert "Terse." in text
            assert f"question {n}?" in text
            shown.append(chat.forgotten)
        assert 1 + 80 == len(chat.history)
        assert shown == sorted(shown)
        assert shown[-1] > 0

    def test_shortening_keeps_the_cache_for_some_turns(self, stage):
        """Most turns change only the end; what was left out stays out for a while."""
        chat = self.chat(stage, "shorten")
        whys = []
        for n in range(40):
            chat.prompt(f"question {n}?", max_tokens=10)
            whys.append(chat.cache_report.reason)
        kept = whys.count("everything cached was kept")
        assert kept > len(whys) // 2

    def test_a_policy_of_the_caller(self, stage):
        """A callable chooses the messages; it is asked only if they do not fit."""
        asked = []

        def last_only(messages, fits):
            asked.append(fits(messages))
            return [messages[0], messages[-1]]

        chat = self.chat(stage, last_only)
        for n in range(12):
            assert "Yes." == chat.prompt(f"question {n}?", max_tokens=10)
        assert asked
        assert not any(asked)
        assert len(chat.history) - 2 - 1 == chat.forgotten

    def test_a_policy_that_raises(self, stage):
        """What the callable raises is raised, and no turn has happened."""

        def fail(messages, fits):
            raise KeyError("mine")

        chat = self.chat(stage, fail, size=64)
        before = chat.history
        with pytest.raises(KeyError, match="mine"):
            chat.prompt("x" * 50, wait=True)
        assert before == chat.history
        assert "Yes." == chat.prompt("?", max_tokens=4)

    def test_a_message_that_never_fits(self, stage):
        """One message that is too long by itself is an error, however shortened."""
        chat = self.chat(stage, "shorten", size=64)
        with pytest.raises(ContextOverflowError):
            chat.prompt("x" * 200)
        assert 1 == len(chat.history)
