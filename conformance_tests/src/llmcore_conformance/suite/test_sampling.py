"""How a token is chosen: sampling.md."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from llmcore import SamplingParams, Sequence
from llmcore_conformance import clause

SHARES = (0.4, 0.3, 0.2, 0.1)
"""Probabilities of the four tokens that `shaped` leaves, before any other parameter."""

LETTERS = "abcdefgh"


@pytest.fixture
def letters(sequence: Sequence) -> list[int]:
    """Different tokens, each the text of one letter, in the order of their numbers."""
    model = sequence.context.model
    found = {model.tokenize(letter)[-1] for letter in LETTERS}
    assert len(found) == len(LETTERS), "the letters have no tokens of their own"
    return sorted(found)


@pytest.fixture
def four(sequence: Sequence, prompt_tokens: list[int], letters: list[int]) -> list[int]:
    """Four tokens, to be given `SHARES`; the sequence expects the next token."""
    sequence.evaluate(prompt_tokens)
    return letters[:4]


def with_shares(sequence: Sequence, four: list[int], **fields: Any) -> SamplingParams:
    """Parameters with which the four tokens have `SHARES`, and the others nothing."""
    logits = sequence.logits
    top = float(logits.max()) + 100
    bias = {
        token: top + math.log(share) - float(logits[token])
        for token, share in zip(four, SHARES, strict=True)
    }
    fields = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | fields
    return SamplingParams(logit_bias=bias, **fields)


def draws(sequence: Sequence, params: SamplingParams, count: int) -> Counter[int]:
    """How often each token is drawn by hand; each draw has a seed of its own."""
    return Counter(sequence.sample(params, seed=seed) for seed in range(count))


def drawn(sequence: Sequence, four: list[int], **fields: Any) -> set[int]:
    """Which of the four tokens are ever drawn, by their places in `SHARES`."""
    params = with_shares(sequence, four, temperature=2.0, **fields)
    return {four.index(token) for token in draws(sequence, params, 80)}


# -- which can be drawn ----------------------------------------------------------------


@clause("sample.greedy-ties")
def test_of_equal_tokens_the_first_is_chosen(
    sequence: Sequence, prompt_tokens: list[int], letters: list[int]
) -> None:
    """Three that are equally likely: by hand and by a stream it is the same one."""
    best, *_ = tied = letters[2:5]
    bias = dict.fromkeys(tied[::-1], 1e30)  # so large that the logits do not matter
    sequence.evaluate(prompt_tokens)
    assert sequence.sample(SamplingParams(logit_bias=bias)) == best
    generated = sequence.generate(prompt_tokens, logit_bias=bias, max_tokens=1)
    assert generated.result.tokens[0] == best


@clause("sample.temperature")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_tokens_are_drawn_as_likely_as_they_are(
    sequence: Sequence, four: list[int], temperature: float
) -> None:
    """Of many draws, each token has its share."""
    weights = np.array(SHARES) ** (1 / temperature)
    expected = weights / weights.sum()
    count = 600
    found = draws(sequence, with_shares(sequence, four, temperature=temperature), count)
    for token, share in zip(four, expected, strict=True):
        spread = 4 * math.sqrt(share * (1 - share) / count)
        assert found[token] / count == pytest.approx(share, abs=spread)


@clause("sample.top-k")
@pytest.mark.parametrize(("count", "kept"), [(1, {0}), (2, {0, 1}), (3, {0, 1, 2})])
def test_only_the_largest_are_drawn(
    sequence: Sequence, four: list[int], count: int, kept: set[int]
) -> None:
    """Each of them is drawn now and then, and none of the others."""
    assert drawn(sequence, four, top_k=count) == kept


@clause("sample.top-p")
@pytest.mark.parametrize(("mass", "kept"), [(0.3, {0}), (0.65, {0, 1}), (0.95, None)])
def test_only_the_most_likely_are_drawn(
    sequence: Sequence, four: list[int], mass: float, kept: set[int] | None
) -> None:
    """As few as reach the probability, before the temperature."""
    assert drawn(sequence, four, top_p=mass) == (kept or {0, 1, 2, 3})


@clause("sample.min-p")
@pytest.mark.parametrize(("share", "kept"), [(0.9, {0}), (0.6, {0, 1}), (0.2, None)])
def test_only_what_is_likely_beside_the_best_is_drawn(
    sequence: Sequence, four: list[int], share: float, kept: set[int] | None
) -> None:
    """All that have the share, before the temperature."""
    assert drawn(sequence, four, min_p=share) == (kept or {0, 1, 2, 3})


@clause("sample.typical")
@pytest.mark.parametrize(("mass", "kept"), [(0.25, {1}), (0.45, {1, 2}), (0.8, None)])
def test_only_what_surprises_as_expected_is_drawn(
    sequence: Sequence, four: list[int], mass: float, kept: set[int] | None
) -> None:
    """The most likely token is not the most typical one."""
    assert drawn(sequence, four, typical_p=mass) == (kept or {0, 1, 2})


@clause("sample.xtc")
@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.15, {2, 3}), (0.25, {1, 2, 3}), (0.35, None)]
)
def test_top_choices_are_excluded(
    sequence: Sequence, four: list[int], threshold: float, kept: set[int] | None
) -> None:
    """The least likely of them stays, and nothing goes if there is only one."""
    fields = {"xtc_probability": 1.0, "xtc_threshold": threshold}
    assert drawn(sequence, four, **fields) == (kept or {0, 1, 2, 3})


@clause("sample.mirostat")
def test_mirostat_follows_the_surprise(
    sequence: Sequence, four: list[int], prompt_tokens: list[int]
) -> None:
    """Each token of an answer is one that the account of those before it allows."""
    tau, eta = 0.5, 0.5
    shares = np.full(sequence.logits.size, -np.inf, np.float32)
    shares[four] = np.log(SHARES)
    result = sequence.generate(
        prompt_tokens,
        temperature=1.0,
        mirostat_tau=tau,
        mirostat_eta=eta,
        seed=1,
        max_tokens=64,
        logits_processors=[lambda tokens, logits: shares],
    ).result
    mu = 2 * tau
    for token in result.tokens:
        allowed = [share for share in SHARES if -math.log2(share) <= mu] or [SHARES[0]]
        place = four.index(token)
        assert place < len(allowed), f"{SHARES[place]} was drawn with mu={mu:.2f}"
        mu -= eta * (-math.log2(SHARES[place] / sum(allowed)) - tau)
    assert len(set(result.tokens)) > 1, "mu never moved"


# -- what changes the logits -----------------------------------------------------------


@clause("sample.bias")
def test_a_bias_moves_a_logit_by_any_number(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Small, large or infinite, it is what decides a greedy choice."""
    sequence.evaluate(prompt_tokens)
    logits = sequence.logits.astype(float)
    third, second, best = map(int, np.argsort(logits, kind="stable")[-3:])
    gap = float(logits[best] - logits[third])
    for bias, expected in (
        ({third: gap + 0.1}, third),
        ({third: gap - 0.1}, best),
        ({best: -1e6}, second),
        ({best: -math.inf, second: -math.inf}, third),
        ({third: 1e6}, third),
    ):
        assert sequence.sample(logit_bias=bias) == expected, f"with the bias {bias}"


def preferred(
    sequence: Sequence,
    history: list[int],
    logits: dict[int, float],
    **fields: Any,
) -> int:
    """
    The token that is chosen after a history.

    Args:
        logits: Of the tokens that are possible, before any penalty.
    """
    sequence.evaluate(history)
    own = sequence.logits
    bias = dict.fromkeys(range(own.size), -math.inf)
    bias |= {token: value - float(own[token]) for token, value in logits.items()}
    return sequence.sample(logit_bias=bias, **fields)


@clause("sample.penalties")
@pytest.mark.parametrize(
    ("fields", "logits", "expected"),
    [
        ({}, (10, 9), "a"),
        ({"frequency_penalty": 0.45}, (10, 9), "a"),
        ({"frequency_penalty": 0.55}, (10, 9), "b"),
        ({"presence_penalty": 0.9}, (10, 9), "a"),
        ({"presence_penalty": 1.1}, (10, 9), "b"),
        ({"repeat_penalty": 1.08}, (10, 9), "a"),
        ({"repeat_penalty": 1.15}, (10, 9), "b"),
        ({"repeat_penalty": 1.08}, (-9, -10), "a"),
        ({"repeat_penalty": 1.15}, (-9, -10), "b"),
        ({"presence_penalty": 1.1, "penalty_last_n": 3}, (10, 9), "b"),
        ({"presence_penalty": 1.1, "penalty_last_n": 2}, (10, 9), "a"),
        ({"frequency_penalty": 0.55, "penalty_last_n": 3}, (10, 9), "a"),
    ],
)
def test_a_penalty_is_what_it_says(
    sequence: Sequence,
    letters: list[int],
    fields: dict[str, Any],
    logits: tuple[float, float],
    expected: str,
) -> None:
    """A token that is there twice loses against a new one just where it must."""
    a, b, c, d = letters[:4]
    values = dict(zip((a, b), logits, strict=True))
    token = preferred(sequence, [a, c, a, d, d], values, **fields)
    assert "ab"[(a, b).index(token)] == expected


@clause("sample.penalties")
def test_a_token_that_left_the_window_is_free_again(
    sequence: Sequence, letters: list[int]
) -> None:
    """Of two tokens, the better one comes whenever both or neither are penalised."""
    a, b = letters[:2]
    params = SamplingParams(
        logit_bias={a: 1e4 + 50, b: 1e4}, presence_penalty=100.0, penalty_last_n=2
    )
    sequence.evaluate(letters[2:6])
    chosen: list[int] = []
    while len(chosen) < 8:
        chosen.append(sequence.sample(params))
        sequence.evaluate(chosen[-1:])
    assert chosen == [a, b, a, a, b, a, a, b]


@clause("sample.dry")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dry_multiplier": 0.45, "dry_base": 2.0}, "a"),  # 0.9
        ({"dry_multiplier": 0.55, "dry_base": 2.0}, "b"),  # 1.1
        ({"dry_multiplier": 0.55, "dry_base": 1.5}, "a"),
        ({"dry_multiplier": 1.5, "dry_allowed_length": 3}, "b"),
        ({"dry_multiplier": 1.5, "dry_allowed_length": 4}, "a"),
        ({"dry_multiplier": 1.5, "dry_penalty_last_n": 5}, "a"),
    ],
)
def test_going_on_with_a_repetition_is_penalised(
    sequence: Sequence, letters: list[int], fields: dict[str, Any], expected: str
) -> None:
    """Three tokens come again: what followed them loses just where it must."""
    a, b, c, d, e, f = letters[:6]
    token = preferred(sequence, [c, d, e, a, f, c, d, e], {a: 10, b: 9}, **fields)
    assert "ab"[(a, b).index(token)] == expected


@clause("sample.dry")
def test_a_breaker_ends_a_repetition(sequence: Sequence, letters: list[int]) -> None:
    """With a breaker among the tokens that come again there is no repetition."""
    a, b, c, d, e, f = letters[:6]
    breaker = sequence.context.model.piece(d).decode()
    history, values = [c, d, e, a, f, c, d, e], {a: 10.0, b: 9.0}
    fields = {"dry_multiplier": 5.0, "dry_breakers": breaker}
    assert preferred(sequence, history, values, **fields) == a


# -- random numbers --------------------------------------------------------------------


@clause("sample.seed")
def test_without_a_seed_no_two_are_the_same(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Two answers of 24 random tokens differ."""
    shares = np.zeros(sequence.context.model.info.vocab_size, np.float32)
    shares[list(sequence.context.model.info.end_tokens)] = -np.inf
    answers = {
        sequence.generate(
            prompt_tokens,
            temperature=1.0,
            max_tokens=24,
            logits_processors=[lambda tokens, logits: shares],
        ).result.tokens
        for _ in range(2)
    }
    assert len(answers) == 2, "both generations drew the same tokens"


@clause("sample.unseeded")
@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.65}, {0, 1}),
        ({"min_p": 0.6}, {0, 1}),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.25}, {1, 2, 3}),
    ],
)
def test_whoever_draws_keeps_to_the_parameters(
    sequence: Sequence,
    four: list[int],
    prompt_tokens: list[int],
    fields: dict[str, Any],
    kept: set[int],
) -> None:
    """Without a seed, nothing is drawn that could not be drawn with one."""
    params = with_shares(sequence, four, temperature=2.0, **fields)
    streams = (
        sequence.generate(prompt_tokens, params, max_tokens=1) for _ in range(24)
    )
    found = {stream.result.tokens[0] for stream in streams}
    assert {four.index(token) for token in found} <= kept
