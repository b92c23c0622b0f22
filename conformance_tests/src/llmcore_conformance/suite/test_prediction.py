"""Predictors, receipts and deterministic contexts: prediction.md."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from typing import Any

import pytest

from llmcore import Context, GenerationResult, Model, Receipt, Sequence
from llmcore.errors import StateMismatchError
from llmcore.prediction import Predictor
from llmcore.testing import ViolationKind
from llmcore.values import CacheKind, Capability, evolve
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_none
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, FreshAnswers, answer, endless

pytest_plugins = ["llmcore_conformance.kinds"]

COUNT = 24
"""Tokens of an answer."""

TIE = 1e-3
"""Logits that are closer than this are equal but for the rounding of an engine."""

RIGHT: dict[str, Callable[[int], bool]] = {
    "none": lambda place: False,
    "half": lambda place: place % 2 == 0,
    "all": lambda place: True,
}
"""Which guesses are right, by their place in the answer."""


class Oracle(Predictor):
    """Knows the answer, and guesses as much of it right as it is told."""

    def __init__(
        self, prompt: Tokens[int], truth: Tokens[int], right: str, size: int
    ) -> None:
        self._known = [*prompt, *truth]
        self._begin = len(prompt)
        self._right = RIGHT[right]
        self._size = size
        self._seen = 0

    def start(self, tokens: Tokens[int]) -> None:
        self._seen = len(tokens)

    def accept(self, tokens: Tokens[int]) -> None:
        self._seen += len(tokens)

    def predict(self, limit: int) -> list[int]:
        places = range(self._seen, len(self._known))[: min(limit, 4)]
        return [self._guess(place) for place in places]

    def _guess(self, place: int) -> int:
        wrong = not self._right(place - self._begin)
        return (self._known[place] + wrong) % self._size


def assert_same(
    model: Model, prompt: Tokens[int], expected: Tokens[int], found: Tokens[int]
) -> None:
    """Two answers are equal, or part where the model finds both equally likely."""
    pairs = enumerate(zip(expected, found, strict=True))
    place = next((n for n, (a, b) in pairs if a != b), None)
    if place is None:
        return
    assert Capability.LOGITS in model.capabilities, f"they differ at token {place}"
    with model.create_context(context_size=SIZE, threads=1) as context:
        sequence = context.get_sequence()
        sequence.evaluate([*prompt, *expected[:place]])
        logits = sequence.logits
    gap = abs(float(logits[expected[place]] - logits[found[place]]))
    assert gap < TIE, f"they differ at token {place}, by logits {gap} apart"


@clause("predict.same")
@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("fields", [{}, {"temperature": 1.5, "seed": 7}])
def test_guesses_do_not_change_an_answer(
    any_context: Context, any_prompt: list[int], right: str, fields: dict[str, Any]
) -> None:
    """Right, wrong and mixed ones; and they count as right only if they are."""
    model = any_context.model
    needed = {Capability.PARTIAL_REMOVE, *([Capability.LOGITS] if fields else [])}
    if not needed <= model.capabilities:
        return
    params = endless(model, **fields)

    def ask(predictor: Predictor | None) -> GenerationResult:
        with any_context.get_sequence() as sequence:
            return sequence.generate(
                any_prompt, params, max_tokens=COUNT, predictor=predictor
            ).result

    truth = ask(None).tokens
    oracle = Oracle(any_prompt, truth, right, model.info.vocab_size)
    found = ask(oracle)
    assert_same(model, any_prompt, truth, found.tokens)
    if found.tokens == truth and right != "half":
        assert (found.usage.predicted_tokens > 0) is (right == "all")


@clause("predict.truth")
@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("ends", ["at a number", "at a token"])
def test_no_guess_stays_in_the_sequence(
    any_sequence: Sequence,
    any_prompt: list[int],
    any_as_new: FreshAnswers,
    ledger: SeamLedger,
    right: str,
    ends: str,
) -> None:
    """It holds prompt and answer, as the engine does, and goes on as new."""
    model = any_sequence.context.model
    if Capability.PARTIAL_REMOVE not in model.capabilities:
        return
    truth = answer(any_sequence, any_prompt, COUNT)
    place = next(n for n in range(8, COUNT) if truth[n] not in truth[:n])
    stops = [truth[place]] if ends == "at a token" else []
    oracle = Oracle(any_prompt, truth, right, model.info.vocab_size)
    result = any_sequence.generate(
        any_prompt,
        endless(model),
        max_tokens=place + 2,
        stop_tokens=stops,
        predictor=oracle,
    ).result
    everything, held = [*any_prompt, *result.tokens], any_sequence.tokens
    assert held == everything[: len(held)], "it holds a wrong guess"
    if model.info.cache_kind is CacheKind.FULL:
        assert len(held) >= len(everything) - 1
    more = [*everything, *any_prompt[:3]]
    assert answer(any_sequence, more) == any_as_new(more)
    assert_none(
        ledger,
        ViolationKind.POSITIONS,
        cause="wrong guesses were left in the engine's cache",
    )


class Failing(Predictor):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        self.error = ZeroDivisionError("a predictor's own")
        self._where = where

    def _fail(self, where: str) -> None:
        if where == self._where:
            raise self.error

    def start(self, tokens: Tokens[int]) -> None:
        self._fail("start")

    def accept(self, tokens: Tokens[int]) -> None:
        self._fail("accept")

    def predict(self, limit: int) -> list[int]:
        self._fail("predict")
        return []


@clause("predict.error")
@pytest.mark.parametrize("where", ["start", "accept", "predict"])
def test_the_error_of_a_predictor_reaches_its_reader(
    wide_context: Context,
    prompt_tokens: list[int],
    other_tokens: list[int],
    as_new: FreshAnswers,
    where: str,
) -> None:
    """The very object; neighbours go on, and the sequence works as new."""
    params = endless(wide_context.model)
    mine, neighbours = wide_context.get_sequence(), []
    if wide_context.sequences_left:
        other = wide_context.get_sequence()
        neighbours = [other.generate(other_tokens, params, max_tokens=8)]
    predictor = Failing(where)
    stream = mine.generate(prompt_tokens, params, max_tokens=8, predictor=predictor)
    with pytest.raises(ZeroDivisionError) as caught:
        list(stream)
    assert caught.value is predictor.error
    for neighbour in neighbours:
        assert neighbour.result.tokens == as_new(other_tokens)
    assert answer(mine, prompt_tokens) == as_new(prompt_tokens)


# -- determinism -----------------------------------------------------------------------


@pytest.fixture
def strict_context(model: Model) -> Callable[..., Context]:
    """``strict_context()``: a deterministic one, with two sequences if it can have."""
    several = Capability.MULTI_SEQUENCE in model.capabilities

    def create(**fields: Any) -> Context:
        return model.create_context(
            context_size=SIZE,
            sequences=2 if several else 1,
            threads=1,
            batch_size=16,
            micro_batch_size=8,
            deterministic=True,
            **fields,
        )

    return create


@clause("det.alone")
def test_neither_neighbours_nor_leftovers_show(
    strict_context: Callable[..., Context],
    prompt_tokens: list[int],
    other_tokens: list[int],
) -> None:
    """An answer alone on a new sequence is the same beside others and on used ones."""
    prompt = [*prompt_tokens, *other_tokens, *prompt_tokens]
    expected = answer(strict_context().get_sequence(), prompt, COUNT)
    context = strict_context()
    sequence, streams = context.get_sequence(), []
    if context.sequences_left:
        other = context.get_sequence()
        params = endless(context.model)
        streams = [other.generate([*prompt, *prompt], params, max_tokens=2 * COUNT)]
        next(streams[0])
    assert answer(sequence, prompt, COUNT) == expected, "beside a neighbour"
    for stream in streams:
        stream.close()
    assert answer(sequence, prompt, COUNT) == expected, "on a used sequence"
    sequence.truncate(len(prompt) // 2)
    assert answer(sequence, prompt, COUNT) == expected, "after a truncation"


@clause("det.receipt")
@pytest.mark.parametrize("fields", [{}, {"temperature": 1.5, "seed": 7}])
def test_a_receipt_repeats_its_answer(
    strict_context: Callable[..., Context],
    prompt_tokens: list[int],
    other_tokens: list[int],
    fields: dict[str, Any],
) -> None:
    """In another context, on a used sequence, after it was written down as text."""
    sequence, second = (strict_context().get_sequence() for _ in range(2))
    model = sequence.context.model
    if fields and Capability.LOGITS not in model.capabilities:  # no seeds
        return
    params = endless(model, **fields)
    result = sequence.generate(prompt_tokens, params, max_tokens=COUNT).result
    receipt = Receipt.from_json(result.receipt.to_json())
    answer(second, other_tokens)
    again = second.replay(receipt).result
    assert again.tokens == result.tokens == receipt.tokens


@clause("det.receipt-mismatch")
@pytest.mark.parametrize("field", ["model", "build", "batch_size", "kv_type_k"])
def test_a_receipt_of_something_else_is_refused(
    strict_context: Callable[..., Context],
    prompt_tokens: list[int],
    ledger: SeamLedger,
    field: str,
) -> None:
    """The error names what differs, and nothing was evaluated."""
    sequence = strict_context().get_sequence()
    params = endless(sequence.context.model)
    receipt = sequence.generate(prompt_tokens, params, max_tokens=2).result.receipt
    held, before = sequence.tokens, ledger.order("decode")
    changes: dict[str, Any] = {field: "other"}
    if field in receipt.context:
        changes = {"context": {**receipt.context, **changes}}
    other = evolve(receipt, **changes)
    with pytest.raises(StateMismatchError) as caught:
        sequence.replay(other)
    assert caught.value.field == field
    assert sequence.tokens == held
    assert ledger.order("decode") == before
