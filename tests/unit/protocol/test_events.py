"""What the events of an answer tell, and the options that decide its end."""

from __future__ import annotations

import math

import numpy as np
import pytest

import llmcore
from llmcore.errors import CapabilityError
from llmcore.events import Finish, ReasoningDelta, TextDelta, TokenDrawn, Usage
from llmcore.testing import NullScript
from llmcore.values import Capability

from .kit import fresh_answer, texts

ALL = NullScript().capabilities
THINKS = "<think>\n"  # in a template: how a model is known to mark its thoughts


def log_softmax(logits):
    values = logits.astype(np.float64)
    values = values - values.max()
    return values - math.log(np.exp(values).sum())


class TestLogprobs:
    @pytest.mark.parametrize("top", [0, 1, 5, 1000])
    @pytest.mark.parametrize(
        "params", [{}, {"temperature": 1.5, "seed": 3, "top_k": 0}]
    )
    def test_they_are_those_of_the_model(self, stage, top, params):
        """The values are the log-softmax of the logits, whatever the sampling does."""
        stage = stage()
        sequence, hand = stage.sequence(), stage.sequence()
        stream = sequence.generate([65], max_tokens=5, logprobs=top, **params)
        hand.evaluate([65])
        for told in stream.result.logprobs:
            wanted = log_softmax(hand.logits)
            assert wanted[told.drawn.token] == pytest.approx(told.drawn.logprob)
            best = np.argsort(-wanted, kind="stable")[:top]
            assert list(best) == [one.token for one in told.top]
            assert list(wanted[best]) == pytest.approx([t.logprob for t in told.top])
            hand.evaluate([told.drawn.token])

    def test_one_for_each_token(self, stage):
        """Each token of the answer has its event, with its bytes, and in the result."""
        stage = stage(answer="é and.")
        stream = stage.sequence().generate([65], logprobs=0)
        told = tuple(e for e in stream if isinstance(e, TokenDrawn))
        assert stream.result.logprobs == told
        assert stream.result.tokens == tuple(one.drawn.token for one in told)
        assert "é and.".encode() == b"".join(one.drawn.piece for one in told)

    def test_bias_and_penalties_do_not_show(self, stage):
        """The log probability of a forced token is what the model gave it."""
        stage = stage()
        sequence = stage.sequence()
        plain = sequence.generate([65], max_tokens=1, logprobs=300).result.logprobs[0]
        forced = sequence.generate(
            [65], max_tokens=1, logprobs=0, logit_bias={7: 100.0}
        ).result.logprobs[0]
        assert 7 == forced.drawn.token
        wanted = {one.token: one.logprob for one in plain.top}
        assert wanted[7] == pytest.approx(forced.drawn.logprob)

    def test_they_need_logits(self, stage):
        """On a backend without logits they are refused, and nothing breaks."""
        sequence = stage(capabilities=ALL - {Capability.LOGITS}).sequence()
        with pytest.raises(CapabilityError, match="no logits"):
            list(sequence.generate([65], max_tokens=3, logprobs=0))
        assert 3 == len(sequence.generate([65], max_tokens=3).result.tokens)


class TestEnd:
    def test_the_model_ends_it(self, stage):
        """The end token ends the answer and is no part of it."""
        result = stage(answer="Hi.").sequence().generate([65]).result
        assert ("Hi.", "end") == (result.text, result.finish_reason)

    @pytest.mark.parametrize("least", [2, 3, 6, 9])
    def test_min_tokens(self, stage, least):
        """No end token is drawn before so many tokens."""
        stream = stage(answer="Hi.").sequence().generate([65], min_tokens=least)
        result = stream.result
        assert least <= len(result.tokens)
        assert result.text.startswith("Hi.")
        if least <= 3:
            assert ("Hi.", "end") == (result.text, result.finish_reason)

    def test_min_tokens_holds_back_stop_tokens(self, stage):
        """Nor is a stop token."""
        stream = (
            stage(answer="abc.")
            .sequence()
            .generate([65], min_tokens=2, stop_tokens=[ord("a")], max_tokens=6)
        )
        result = stream.result
        assert 2 <= len(result.tokens)
        assert "a" != result.text[0]

    def test_ignore_eos(self, stage):
        """End tokens are a part of the answer, without text, when they are ignored."""
        stage = stage(answer="Hi.")
        end = stage.model.info.end_tokens
        stream = stage.sequence().generate([65], ignore_eos=True, max_tokens=6)
        assert "max_tokens" == stream.result.finish_reason
        assert 6 == len(stream.result.tokens)
        assert end & set(stream.result.tokens)

    def test_stop_tokens(self, stage):
        """A stop token ends the answer and is no part of it."""
        stage = stage(answer="abc.")
        result = stage.sequence().generate([65], stop_tokens=ord("c")).result
        assert ("ab", "stop") == (result.text, result.finish_reason)
        assert tuple(stage.tokens("ab")) == result.tokens

    def test_a_stop_string_over_tokens(self, stage):
        """A stop string that spans tokens ends the answer before it."""
        stream = stage(answer="one two.").sequence().generate([65], stop=["e tw"])
        assert "on" == texts(stream)
        assert "stop" == stream.result.finish_reason


class TestUsage:
    def test_its_numbers(self, stage):
        """Prompt, what of it was cached, and what was drawn."""
        stage = stage()
        sequence = stage.sequence()
        sequence.evaluate([65, 66, 67])
        *_, usage, finish = sequence.generate([65, 66, 70, 71], max_tokens=5)
        assert Usage(prompt_tokens=4, cached_tokens=2, completion_tokens=5) == usage
        assert Finish(reason="max_tokens") == finish

    def test_the_result_has_them_too(self, stage):
        """The result tells the same as the events."""
        stream = stage().sequence().generate([65, 66], max_tokens=5)
        hit, *_, usage, finish = stream
        result = stream.result
        assert (hit.report, usage) == (result.cache, result.usage)
        assert finish.reason == result.finish_reason
        assert (2, 5) == (result.prompt_tokens, usage.completion_tokens)

    def test_text_counts_tokens(self, stage):
        """Each piece of text tells how many tokens there are so far."""
        stream = stage(answer="abé☃.").sequence().generate([65])
        told = [(e.text, e.tokens) for e in stream if isinstance(e, TextDelta)]
        assert [("a", 1), ("b", 2), ("é", 3), ("☃", 6), (".", 7)] == told


class TestReasoning:
    def chat(self, stage, answer, *, inside=False):
        template = (
            "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' "
            "+ m['content'] + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>a\n' }}"
            + ("{{ '<think>\n' }}" if inside else "{# <think> #}")
        )
        stage = stage(answer=answer)
        sequence = stage.sequence(context_size=512)
        return stage.keep(llmcore.ChatSession(sequence, chat_template=template))

    def test_thoughts_are_told_apart(self, stage):
        """What the model thinks comes as its own events, and is no answer."""
        chat = self.chat(stage, "<think>Hm, é.</think>Paris.")
        stream = chat.stream("Capital?")
        thoughts = [e for e in stream if isinstance(e, ReasoningDelta)]
        assert "Hm, é." == "".join(e.reasoning for e in thoughts)
        assert "" == texts(thoughts)
        assert ("Paris.", "Hm, é.") == (stream.result.text, stream.result.reasoning)

    def test_history_has_the_answer_only(self, stage):
        """Thoughts do not become history, and the next turn is right."""
        chat = self.chat(stage, "<think>Hm.</think>Paris.")
        for n in range(2):
            assert "Paris." == chat.prompt(f"{n}?")
        assert ["Paris."] * 2 == [m.content for m in chat.history if m[0] != "user"]

    def test_a_template_may_begin_the_thought(self, stage):
        """Where the template writes the first mark the answer begins inside."""
        stream = self.chat(stage, "Hm.</think>Paris.", inside=True).stream("Capital?")
        assert ("Paris.", "Hm.") == (stream.result.text, stream.result.reasoning)

    def test_an_unfinished_thought(self, stage):
        """An answer that ends within a thought is no answer at all."""
        stream = self.chat(stage, "<think>Hm, hm, hm.").stream("?", max_tokens=9)
        assert "" == stream.result.text
        assert "Hm" == stream.result.reasoning[:2]

    def test_without_marks_in_the_template(self, stage):
        """A model whose template knows no thoughts writes the marks as text."""
        stage = stage(answer="<think>a</think>b")
        chat = stage.keep(llmcore.ChatSession(stage.sequence(context_size=512)))
        assert "<think>a</think>b" == chat.prompt("?")


def test_options_change_nothing_else(stage):
    """Asking for numbers does not change what is drawn."""
    stage = stage()
    prompt = stage.tokens("same")
    plain = fresh_answer(stage, prompt, 20)
    assert plain == fresh_answer(stage, prompt, 20, logprobs=3)
    assert plain == fresh_answer(stage, prompt, 20, logits_processors=[lambda t, x: x])


class TestTokenNumbers:
    @pytest.mark.parametrize(
        "options", [{"logit_bias": {10**6: 1.0}}, {"stop_tokens": [10**6]}]
    )
    def test_that_do_not_exist(self, stage, options):
        """An option that names a token outside the vocabulary is refused at once."""
        stage = stage()
        with pytest.raises(ValueError, match="1000000"):
            stage.sequence().generate([65], **options)
        assert 0 == stage.decodes()
