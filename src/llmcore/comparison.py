"""
Telling whether two engines compute the same: greedy answers side by side.

    for found in compare(model_on_a, model_on_b, ["Once upon a time"]):
        print(found.verdict, found.first)

Two engines round differently, so two tokens that are nearly equally likely may change
places, and everything after them is another text. A fault in an engine looks the same
from afar; how far apart the two tokens are tells one from the other.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from llmcore.model import Model
from llmcore.values import Capability

LEAST_SIZE = 8
"""A context cannot be smaller."""
TOLERANCE = 0.6
"""
Logits between two tokens that rounding may bridge. llama.cpp rounds what it multiplies
by 4-bit weights to 8 bits; against exact products that moves the gap between two tokens
by 0.2 (root mean square, SmolLM2 in Q4_1), and this is three times that.
"""


class Verdict(enum.StrEnum):
    """What a comparison means."""

    SAME = "same"
    """Token for token."""
    NEAR_TIE = "near tie"
    """They differ where two tokens are nearly equally likely: rounding."""
    DEFECT = "defect"
    """They differ more than rounding explains: one of them computes something else."""
    UNKNOWN = "unknown"
    """They differ, and one of them shows no logits."""


@frozen(kw_only=True)
class Choice:
    """
    What one side chose where the two part.

    Attributes:
        token: Its token.

        piece: The bytes of that token.

        margin: By how much it liked its own token better than the other's, in logits;
            None if it shows none.
    """

    token: int
    piece: bytes
    margin: float | None


@frozen(kw_only=True)
class Divergence:
    """The first place where two answers differ: so many tokens are equal before it."""

    index: int
    a: Choice
    b: Choice


@frozen(kw_only=True)
class Comparison:
    """
    One prompt on two engines.

    Attributes:
        prompt: The text.

        tokens: How many it has; those of ``a`` are used on both sides.

        same_tokens: Whether both sides cut the text into the same tokens.

        answers: The tokens of ``a`` and of ``b``.

        first: Where they part, if they do.

        verdict: What that means.
    """

    prompt: str
    tokens: int
    same_tokens: bool
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    first: Divergence | None
    verdict: Verdict


def compare(
    a: Model,
    b: Model,
    prompts: Iterable[str],
    *,
    max_tokens: int = 32,
    tolerance: float = TOLERANCE,
) -> Iterator[Comparison]:
    """
    Answer prompts greedily on two loaded models, one after the other.

    Args:
        a: The model on one engine.

        b: The same file on another.

        prompts: Plain texts that the models continue.

        max_tokens: Of each answer; an end token does not end it.

        tolerance: The most logits between two tokens of a near tie.

    Raises:
        ValueError: The vocabularies have different sizes, or a prompt is empty.
    """
    sizes = a.info.vocab_size, b.info.vocab_size
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{a!r} and {b!r} are different models: their vocabularies have {sizes[0]} "
            f"and {sizes[1]} tokens; compare one file on two engines"
        )
    for prompt in prompts:
        tokens = a.tokenize(prompt, add_bos=a.info.add_bos)
        if not tokens:
            raise ValueError("an empty prompt cannot be compared: give it a text")
        answers = _answer(a, tokens, max_tokens), _answer(b, tokens, max_tokens)
        same_tokens = tokens == b.tokenize(prompt, add_bos=b.info.add_bos)
        first = _first_difference(a, b, tokens, answers)
        yield Comparison(
            prompt=prompt,
            tokens=len(tokens),
            same_tokens=same_tokens,
            answers=answers,
            first=first,
            verdict=_verdict(same_tokens, first, tolerance),
        )


def _answer(model: Model, prompt: Sequence[int], count: int) -> tuple[int, ...]:
    size = len(prompt) + count
    with model.create_context(context_size=max(size, LEAST_SIZE)) as context:
        stream = context.get_sequence().generate(
            prompt, temperature=0.0, max_tokens=count, ignore_eos=True
        )
        return stream.result.tokens


def _first_difference(
    a: Model,
    b: Model,
    prompt: Sequence[int],
    answers: tuple[tuple[int, ...], tuple[int, ...]],
) -> Divergence | None:
    for index, (left, right) in enumerate(zip(*answers, strict=True)):
        if left != right:
            common = [*prompt, *answers[0][:index]]
            return Divergence(
                index=index,
                a=_choice(a, common, left, right),
                b=_choice(b, common, right, left),
            )
    return None


def _choice(model: Model, tokens: Sequence[int], own: int, other: int) -> Choice:
    margin = None
    if Capability.LOGITS in model.capabilities:
        size = max(len(tokens), LEAST_SIZE)
        with model.create_context(context_size=size) as context:
            sequence = context.get_sequence()
            sequence.evaluate(tokens)
            logits = sequence.logits
            margin = float(logits[own] - logits[other])
    return Choice(token=own, piece=model.piece(own), margin=margin)


def _verdict(same_tokens: bool, first: Divergence | None, tolerance: float) -> Verdict:
    if not same_tokens:
        return Verdict.DEFECT
    if first is None:
        return Verdict.SAME
    margins = [first.a.margin, first.b.margin]
    known = [margin for margin in margins if margin is not None]
    if any(margin > tolerance for margin in known):
        return Verdict.DEFECT
    return Verdict.NEAR_TIE if len(known) == len(margins) else Verdict.UNKNOWN
