"""Predictors: they change how many steps an answer takes, and nothing else."""

from __future__ import annotations

import random

import pytest

from llmcore.errors import CapabilityError
from llmcore.prediction import DraftModel, Predictor, PromptLookup
from llmcore.testing import NullScript
from llmcore.values import Capability

from .kit import fresh_answer, sequences, truthful

COUNT = 40


class Oracle(Predictor):
    """Knows the answer, and lies as often as it is told to."""

    def __init__(self, prompt, answer, truth, most=5):
        self.truth = [*prompt, *answer]
        self.share = truth
        self.most = most
        self.random = random.Random(1)
        self.seen = []

    def start(self, tokens):
        self.seen = list(tokens)

    def accept(self, tokens):
        self.seen += tokens

    def predict(self, limit):
        assert self.seen == self.truth[: len(self.seen)]
        following = self.truth[len(self.seen) :][: min(limit, self.most)]
        return [t if self.random.random() < self.share else t ^ 1 for t in following]


WAYS = [
    {},
    {"temperature": 0.8, "seed": 4, "top_k": 0},
    {"repeat_penalty": 1.4, "frequency_penalty": 0.2},
    {"temperature": 0.8, "seed": 4, "repeat_penalty": 1.4, "logprobs": 1},
    {"min_tokens": 10},
]


class TestAnswers:
    @pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("params", WAYS)
    def test_they_stay_the_same(self, stage, truth, params):
        """Right, wrong or half right: the answer is the one without a predictor."""
        stage = stage()
        prompt = stage.tokens("tell me")
        plain = fresh_answer(stage, prompt, COUNT, **params)
        sequence = stage.sequence()
        oracle = Oracle(prompt, plain, truth)
        stream = sequence.generate(prompt, max_tokens=COUNT, predictor=oracle, **params)
        assert plain == stream.result.tokens
        assert truthful(sequence)

    @pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize(
        "options",
        [
            {"max_tokens": 1},
            {"max_tokens": 4},
            {"max_tokens": 7},
            {"stop": ["two"]},
            {"stop_tokens": [ord("w")]},
            {},
        ],
    )
    def test_an_end_inside_of_what_was_guessed(self, stage, truth, options):
        """An answer ends at the same place as without guesses; the cache is true."""
        stage = stage(answer="one two three.")
        prompt = stage.tokens("A")
        wanted = stage.sequence().generate(prompt, **options).result
        known = [*stage.tokens("one two three."), *stage.model.info.end_tokens]
        oracle = Oracle(prompt, known, truth)
        sequence = stage.sequence()
        result = sequence.generate(prompt, predictor=oracle, **options).result
        assert (wanted.tokens, wanted.text) == (result.tokens, result.text)
        assert wanted.finish_reason == result.finish_reason
        assert truthful(sequence)
        held = sequence.tokens
        assert [*prompt, *result.tokens][: len(held)] == held

    @pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
    def test_beside_neighbours_in_small_batches(self, stage, truth):
        """Guesses that do not fit into a step are left out, and nobody is wronged."""
        stage = stage()
        made = sequences(stage, 3, batch_size=4)
        prompts = [stage.tokens(f"beside {n}") for n in range(3)]
        answers = [fresh_answer(stage, prompt, COUNT) for prompt in prompts]
        streams = [
            one.generate(
                prompt, max_tokens=COUNT, predictor=Oracle(prompt, answer, truth)
            )
            for one, prompt, answer in zip(made, prompts, answers, strict=True)
        ]
        assert answers == [stream.result.tokens for stream in streams]
        assert all(truthful(one) for one in made)

    def test_a_full_sequence(self, stage):
        """Guesses never go beyond what the sequence can hold."""
        stage = stage()
        prompt = stage.tokens("fill")
        plain = fresh_answer(stage, prompt, 100)
        sequence = stage.sequence(context_size=16)
        oracle = Oracle(prompt, plain, 1.0, most=50)
        result = sequence.generate(prompt, predictor=oracle).result
        assert "context_full" == result.finish_reason
        assert plain[: len(result.tokens)] == result.tokens
        assert 17 - len(prompt) == len(result.tokens)

    @pytest.mark.parametrize("applied", [0, 2, 9])
    def test_a_failed_step(self, stage, applied):
        """A shared step with guesses that fails once is made good."""
        stage = stage()
        made = sequences(stage, 2)
        prompts = [stage.tokens(f"fail {n}") for n in range(2)]
        answers = [fresh_answer(stage, prompt, COUNT) for prompt in prompts]
        with stage.script.gate("decode") as gate:
            streams = [made[0].generate(prompts[0], max_tokens=COUNT)]
            gate.wait_entered()
            oracle = Oracle(prompts[1], answers[1], 0.7)
            streams.append(
                made[1].generate(prompts[1], max_tokens=COUNT, predictor=oracle)
            )
            stage.script.fail("decode", nth=4, applied=applied, sequence=1)
        assert answers == [stream.result.tokens for stream in streams]


class TestSteps:
    def test_right_guesses_save_steps(self, stage):
        """Right guesses make an answer in fewer steps; the usage says how many."""
        stage = stage()
        prompt = stage.tokens("fast")
        plain = fresh_answer(stage, prompt, COUNT)
        before = stage.decodes()
        sequence = stage.sequence()
        usage = sequence.generate(
            prompt, max_tokens=COUNT, predictor=Oracle(prompt, plain, 1.0)
        ).result.usage
        # The prompt, then six at a time: five guesses, and what follows them.
        assert 1 + -(-(COUNT - 1) // 6) == stage.decodes() - before
        assert usage.predicted_tokens >= 30

    def test_wrong_guesses_cost_no_steps(self, stage):
        """Wrong guesses take as many steps as none, and count as none."""
        stage = stage()
        prompt = stage.tokens("slow")
        plain = fresh_answer(stage, prompt, COUNT)
        before = stage.decodes()
        usage = (
            stage.sequence()
            .generate(prompt, max_tokens=COUNT, predictor=Oracle(prompt, plain, 0.0))
            .result.usage
        )
        assert COUNT == stage.decodes() - before
        assert 0 == usage.predicted_tokens

    def test_it_needs_removal(self, stage):
        """Where wrong guesses could not be removed, a predictor is refused at once."""
        one = stage(
            capabilities=NullScript().capabilities - {Capability.PARTIAL_REMOVE}
        )
        with pytest.raises(CapabilityError, match="partial-remove"):
            one.sequence().generate([65], predictor=PromptLookup())
        assert 0 == one.decodes()

    def test_a_guess_that_is_no_token(self, stage):
        """A predictor that guesses what is no token fails its own stream."""

        class Bad(PromptLookup):
            def predict(self, limit):
                return [10**6]

        sequence = stage().sequence()
        with pytest.raises(ValueError, match="whole numbers"):
            list(sequence.generate([65], predictor=Bad()))
        sequence.evaluate([1])


class TestPromptLookup:
    def test_copies_are_guessed(self, stage):
        """An answer that repeats its prompt takes fewer steps."""
        stage = stage(answer="to be or not to be that is")
        prompt = stage.tokens("Repeat: to be or not to be that is it.\n")
        before = stage.decodes()
        result = stage.sequence().generate(prompt, predictor=PromptLookup()).result
        assert "to be or not to be that is" == result.text
        assert stage.decodes() - before < len(result.tokens) // 2
        assert result.usage.predicted_tokens > len(result.tokens) // 2

    def test_the_longest_match_wins(self):
        """What followed the longest equal run is guessed, the latest of equals."""
        lookup = PromptLookup(longest=2, shortest=1)
        lookup.start([1, 2, 3, 9, 2, 4, 1, 2])
        assert 3 == lookup.predict(1)[0]
        lookup = PromptLookup(longest=1, shortest=1)
        lookup.start([2, 3, 2, 4, 2])
        assert 4 == lookup.predict(1)[0]

    def test_nothing_alike(self):
        """Where nothing repeats, nothing is guessed."""
        lookup = PromptLookup()
        lookup.start([1, 2, 3])
        lookup.accept([4])
        assert [] == list(lookup.predict(5))

    def test_it_learns_how_much_to_guess(self):
        """It guesses more after it was right, and less after it was wrong."""
        lookup = PromptLookup(most=10)
        text = list(range(20))
        lookup.start([*text, 0, 1, 2])
        assert [3, 4, 5, 6] == list(lookup.predict(20))
        lookup.accept([3, 4, 5, 6])
        assert [7, 8, 9, 10, 11, 12, 13, 14] == list(lookup.predict(20))
        lookup.accept([7, 99, 0, 1, 2])
        assert [3, 4] == list(lookup.predict(20))

    @pytest.mark.parametrize("bad", [{"most": 0}, {"shortest": 0}, {"longest": 1}])
    def test_bad_numbers(self, bad):
        """Numbers that make no sense are refused."""
        with pytest.raises(ValueError, match="must be at least 1"):
            PromptLookup(**bad)


class TestDraftModel:
    def test_a_model_is_not_its_own_draft(self, stage):
        """The same model as draft is refused before anything is evaluated."""
        stage = stage()
        draft = DraftModel(stage.sequence())
        with pytest.raises(ValueError, match="cannot be its own draft"):
            stage.sequence().generate([65], predictor=draft)
        assert 0 == stage.decodes()

    @pytest.mark.parametrize("name", ["null", "other"])
    @pytest.mark.parametrize("params", WAYS)
    def test_another_model(self, stage, name, params):
        """A draft that thinks alike saves steps, another one does no harm."""
        large, small = stage(), stage(name=name)
        prompt = large.tokens("draft")
        plain = fresh_answer(large, prompt, COUNT, **params)
        before = large.decodes()
        draft = DraftModel(small.sequence(), confidence=0.0)
        sequence = large.sequence()
        result = sequence.generate(
            prompt, max_tokens=COUNT, predictor=draft, **params
        ).result
        assert plain == result.tokens
        assert truthful(sequence)
        if name == "null" and not params:
            assert large.decodes() - before < COUNT // 3

    def test_an_unsure_draft_guesses_nothing(self, stage):
        """Below the confidence that was asked for nothing is guessed."""
        large, small = stage(), stage()
        draft = DraftModel(small.sequence(), confidence=1.0)
        result = large.sequence().generate([65], max_tokens=9, predictor=draft).result
        assert 0 == result.usage.predicted_tokens

    @pytest.mark.parametrize("bad", [{"most": 0}, {"confidence": 1.1}])
    def test_bad_numbers(self, stage, bad):
        """Numbers that make no sense are refused."""
        with pytest.raises(ValueError, match="most must be at least 1"):
            DraftModel(stage().sequence(), **bad)
