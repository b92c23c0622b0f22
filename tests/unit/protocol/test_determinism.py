"""Contexts whose answers depend on nothing but their prompt, and their receipts."""

from __future__ import annotations

import pytest

from llmcore.engine.receipt import Receipt
from llmcore.errors import StateMismatchError

from .kit import numbers, sequences


class TestAlone:
    def test_a_batch_has_one_sequence(self, stage):
        """However many wait, each step is of one of them, and all get on."""
        stage = stage()
        made = sequences(stage, 3, deterministic=True, batch_size=4)
        with stage.script.gate("decode") as gate:
            streams = [made[0].generate([65] * 6, max_tokens=6)]
            gate.wait_entered()
            streams += [one.generate([66] * 6, max_tokens=6) for one in made[1:]]
        assert [6, 6, 6] == [len(stream.result.tokens) for stream in streams]
        assert all(1 == len(numbers(batch)) for batch in stage.ledger.batches)
        assert streams[1].result.tokens == streams[2].result.tokens

    def test_each_prompt_from_its_start(self, stage):
        """What the sequence held is not used, and the report says why."""
        stage = stage()
        sequence = stage.sequence(deterministic=True)
        results = [sequence.generate([65] * 6, max_tokens=6).result for _ in range(2)]
        assert results[0].tokens == results[1].tokens
        assert 6 == results[1].cache.evaluated
        assert "deterministic" in results[1].cache.reason

    def test_the_same_pieces_beside_others(self, stage):
        """The batches of a sequence are the same with and without neighbours."""
        alone, beside = stage(), stage()
        params = {"deterministic": True, "batch_size": 8, "micro_batch_size": 4}

        def pieces(stage):
            return [
                (b.tokens, b.positions)
                for b in stage.ledger.batches
                if 1 in b.sequences
            ]

        _, one = sequences(alone, 2, **params)
        wanted = one.generate([65] * 20, max_tokens=6).result.tokens
        other, two = sequences(beside, 2, **params)
        with beside.script.gate("decode") as gate:
            talk = other.generate([66] * 20, max_tokens=7)
            gate.wait_entered()
            stream = two.generate([65] * 20, max_tokens=6)
        assert 7 == len(talk.result.tokens)
        assert wanted == stream.result.tokens
        assert pieces(alone) == pieces(beside)


class TestReceipts:
    OPTIONS = ({}, {"temperature": 0.9, "seed": 4}, {"repeat_penalty": 1.3})

    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("deterministic", [True, False])
    def test_replay_repeats_the_answer(self, stage, options, deterministic):
        """An answer's receipt, sent as text, repeats it token by token elsewhere."""
        stage = stage()
        sequence = stage.sequence(deterministic=deterministic)
        sequence.evaluate([1, 2, 3])
        result = sequence.generate(
            stage.tokens("receipt"), max_tokens=9, stop=["zzz"], **options
        ).result
        receipt = Receipt.from_json(result.receipt.to_json())
        elsewhere = stage.sequence(deterministic=deterministic)
        elsewhere.evaluate([4, 5])
        again = elsewhere.replay(receipt).result
        assert (result.tokens, result.text) == (again.tokens, again.text)
        assert again.receipt.tokens == receipt.tokens

    def test_a_random_answer_without_a_seed(self, stage):
        """A seed that core drew by itself is in the receipt, and repeats the answer."""
        stage = stage()
        sequence = stage.sequence()
        result = sequence.generate(
            [65], max_tokens=20, temperature=1.0, min_tokens=1
        ).result
        assert result.tokens == sequence.replay(result.receipt).result.tokens

    def test_an_engine_that_drew_by_itself(self, stage):
        """Where the engine drew with its own seed, the receipt says so."""
        sequence = stage().sequence()
        result = sequence.generate([65], max_tokens=5, temperature=1.0).result
        with pytest.raises(ValueError, match=r"cannot be replayed: .*give one"):
            sequence.replay(result.receipt)

    @pytest.mark.parametrize(
        ("field", "there"),
        [
            ("context_size", {"context_size": 64}),
            ("batch_size", {"batch_size": 64}),
            ("deterministic", {"deterministic": True}),
        ],
    )
    def test_another_context(self, stage, field, there):
        """Where something differs, it is named, and the sequence keeps what it has."""
        stage = stage()
        receipt = stage.sequence().generate([65], max_tokens=5).result.receipt
        other = stage.sequence(**there)
        other.evaluate([1, 2])
        with pytest.raises(StateMismatchError, match=field) as caught:
            other.replay(receipt)
        assert field == caught.value.field
        assert [1, 2] == other.tokens

    def test_another_model(self, stage):
        """Other weights are named."""
        receipt = stage().sequence().generate([65], max_tokens=5).result.receipt
        with pytest.raises(StateMismatchError) as caught:
            stage(name="other").sequence().replay(receipt)
        assert "model" == caught.value.field
