"""
What a stream tells of an answer, event by event.

Each event has a ``text``: what it adds to the answer, nothing for most of them.
So ``for event in stream: print(event.text, end="")`` is all that most readers need.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

FinishReason = Literal["end", "stop", "max_tokens", "context_full", "stopped"]


@frozen(kw_only=True)
class CacheReport:
    """
    How much of a prompt was in the cache already, in tokens, and why not more.

    ``matched + shifted + evaluated`` is the length of the prompt; at least one token is
    evaluated.

    Attributes:
        matched: In place, from the start.

        shifted: Further on, and moved to where the prompt has them.

        evaluated: Evaluated for this answer.

        reason: Why the reuse ended where it did.
    """

    matched: int
    evaluated: int
    reason: str
    shifted: int = 0

    @property
    def reused(self) -> int:
        """All that was not evaluated."""
        return self.matched + self.shifted


@frozen(kw_only=True)
class TokenLogprob:
    """A token, its bytes, and the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float


@frozen(kw_only=True)
class StreamEvent:
    """The base of all events."""

    text: str = ""


@frozen(kw_only=True)
class CacheHit(StreamEvent):
    """The first event: what of the prompt was in the cache."""

    report: CacheReport


@frozen(kw_only=True)
class TextDelta(StreamEvent):
    """
    A piece of the answer.

    Attributes:
        text: Whole characters, at least one.

        tokens: How many tokens the answer has so far.
    """

    tokens: int


@frozen(kw_only=True)
class ReasoningDelta(StreamEvent):
    """
    A piece of what the model thinks before it answers, where its template marks that.

    Attributes:
        reasoning: Whole characters; not part of the answer, so ``text`` is empty.

        tokens: How many tokens there are so far.
    """

    reasoning: str
    tokens: int


@frozen(kw_only=True)
class TokenDrawn(StreamEvent):
    """
    A token was drawn; only with the option ``logprobs``.

    Attributes:
        drawn: The token.

        top: The most likely ones, the best first, as many as were asked for.
    """

    drawn: TokenLogprob
    top: tuple[TokenLogprob, ...]


@frozen(kw_only=True)
class Shifted(StreamEvent):
    """
    The sequence was full, and old tokens were dropped from it.

    Attributes:
        dropped: How many.

        kept: How many at the start were kept in place.
    """

    dropped: int
    kept: int


@frozen(kw_only=True)
class Usage(StreamEvent):
    """
    What the answer cost, in tokens; comes right before `Finish`.

    Attributes:
        prompt_tokens: Length of the prompt.

        cached_tokens: Of them, those that were not evaluated.

        completion_tokens: Drawn tokens.

        predicted_tokens: Of them, those that a predictor had guessed right.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    predicted_tokens: int = 0


@frozen(kw_only=True)
class Finish(StreamEvent):
    """The last event, and why the answer ended."""

    reason: FinishReason
