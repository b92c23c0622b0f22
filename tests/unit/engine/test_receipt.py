"""Receipts as text and back, and what they compare."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from llmcore.engine.receipt import Receipt
from llmcore.errors import StateMismatchError
from llmcore.testing import null_backend
from llmcore.values import (
    ContextParams,
    GenerationParams,
    ModelParams,
    SamplingParams,
    Shift,
)

PARAMS = ContextParams(context_size=64, deterministic=True)
MODEL = null_backend().load_model(None, ModelParams(), lambda share: True)


def receipt(seed: int | None = 5, **fields: Any) -> Receipt:
    chosen: dict[str, Any] = {"max_tokens": 4, "stop": ["x"], "stop_tokens": [3]}
    options = GenerationParams(**chosen, **fields)
    sampling = SamplingParams(
        temperature=0.7, logit_bias={3: float("-inf"), 4: 1.5}, dry_breakers=["\n"]
    )
    return Receipt.of(
        MODEL.info, PARAMS, sampling, options, seed=seed, prompt=[1, 2], tokens=[9]
    )


class TestText:
    def test_round_trip(self) -> None:
        """A receipt read from its text is equal to it, minus infinity included."""
        one = receipt()
        again = Receipt.from_json(one.to_json())
        assert again.sampling == one.sampling
        assert again.prompt == one.prompt
        assert again.tokens == one.tokens
        assert again.context == one.context
        again.check(MODEL.info, PARAMS)

    def test_its_options_still_make_options(self) -> None:
        """The options of a receipt that was text mean what they meant."""
        one = receipt()
        again = Receipt.from_json(one.to_json())
        assert GenerationParams(**again.options) == GenerationParams(**one.options)

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"sampling": 3}'])
    def test_something_else(self, text: str) -> None:
        """What is no receipt is refused as such."""
        with pytest.raises(ValueError, match="this is not a receipt"):
            Receipt.from_json(text)


class TestCheck:
    @pytest.mark.parametrize(
        ("field", "value"),
        [("build", "null 0"), ("model", "00")],
    )
    def test_who_drew(self, field: str, value: str) -> None:
        """Another engine or other weights are named."""
        changed: dict[str, Any] = {field: value}
        one = evolve(receipt(), **changed)
        with pytest.raises(StateMismatchError) as caught:
            one.check(MODEL.info, PARAMS)
        assert (caught.value.field, caught.value.saved) == (field, value)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("context_size", 128),
            ("batch_size", 16),
            ("kv_type_k", "q8_0"),
            ("deterministic", False),
        ],
    )
    def test_where(self, field: str, value: Any) -> None:
        """A parameter of the context that matters is named."""
        other = evolve(PARAMS, **{field: value})
        with pytest.raises(StateMismatchError) as caught:
            receipt().check(MODEL.info, other)
        assert (caught.value.field, caught.value.here) == (field, value)

    def test_the_seed_is_kept(self) -> None:
        """The seed that core had drawn by itself is in the receipt."""
        assert receipt(seed=77).sampling.seed == 77

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"seed": None}, "give one"),
            ({"logits_processors": [lambda tokens, logits: None]}, "are code"),
            ({"overflow": Shift()}, "may have been dropped"),
        ],
    )
    def test_what_cannot_be_repeated(self, fields: dict[str, Any], said: str) -> None:
        """A receipt of an answer that cannot be repeated says why."""
        with pytest.raises(ValueError, match=f"cannot be replayed: .*{said}"):
            receipt(**fields).check(MODEL.info, PARAMS)
