"""
Predictors: who guesses the next tokens, so that the engine can check several at once.

A guess changes how fast an answer comes, never what it says: each token is still drawn
from the model, and the first wrong guess ends the row.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcore.engine.reuse import common_prefix

if TYPE_CHECKING:
    from llmcore.model import Model
    from llmcore.sequence import Sequence as TokenSequence

__all__ = ["DraftModel", "Predictor", "PromptLookup"]


class Predictor(abc.ABC):
    """
    Guesses for one answer at a time; give it as the option ``predictor``.

    Called on the engine's thread, between two steps. What it raises ends the answer.
    """

    def check(self, model: Model) -> None:
        """
        Whether it can guess for a model; called before anything is evaluated.

        Raises:
            ValueError: It cannot; says why.
        """
        return

    @abc.abstractmethod
    def start(self, tokens: Sequence[int]) -> None:
        """A new answer begins: the prompt and its first tokens."""

    @abc.abstractmethod
    def accept(self, tokens: Sequence[int]) -> None:
        """These came next, guessed or not."""

    @abc.abstractmethod
    def predict(self, limit: int) -> Sequence[int]:
        """
        What may come next.

        Args:
            limit: Most tokens that can be used, 1 or more.

        Returns:
            Token numbers; none is fine.
        """


class PromptLookup(Predictor):
    """
    Guesses that what followed the last tokens before follows them again: good for
    answers that copy from their prompt (Saxena, "Prompt Lookup Decoding").

    Takes no time worth speaking of, and memory for each token of prompt and answer. It
    guesses more after it was right, and less after it was wrong.

    Args:
        most: Most tokens to guess at once.

        longest: Tokens that must be equal, at most; tried first.

        shortest: The same, at least.
    """

    def __init__(self, most: int = 16, longest: int = 3, shortest: int = 2) -> None:
        if most < 1 or not 1 <= shortest <= longest:
            raise ValueError(
                "most must be at least 1, and shortest from 1 to longest, got "
                f"most={most}, shortest={shortest}, longest={longest}"
            )
        self._most = most
        self._lengths = range(longest, shortest - 1, -1)
        self.start(())

    def start(self, tokens: Sequence[int]) -> None:
        """Learn the prompt."""
        self._tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}
        self._guess: Sequence[int] = ()
        self._length = min(4, self._most)
        self.accept(tokens)

    def accept(self, tokens: Sequence[int]) -> None:
        """Learn what came next, and how good the last guess was."""
        if self._guess:
            right = common_prefix(self._guess, tokens)
            grown = 2 * self._length if right == len(self._guess) else right + 1
            self._length, self._guess = min(grown, self._most), ()
        for token in tokens:
            for length in self._lengths:
                if length <= len(self._tokens):
                    self._follows[tuple(self._tokens[-length:])] = len(self._tokens)
            self._tokens.append(token)

    def predict(self, limit: int) -> Sequence[int]:
        """What followed the last tokens the last time."""
        for length in self._lengths:
            at = self._follows.get(tuple(self._tokens[-length:]))
            if at is not None and length <= len(self._tokens):
                self._guess = self._tokens[at : at + min(limit, self._length)]
                return self._guess
        return ()


class DraftModel(Predictor):
    """
    Guesses with a smaller model of the same vocabulary (Leviathan et al., "Fast
    Inference from Transformers via Speculative Decoding", in its greedy form).

    Args:
        sequence: Of the small model, in a context of its own; used by nobody else.

        most: Most tokens to guess at once.

        confidence: Stop guessing where the small model gives its best token less than
            this probability.
    """

    def __init__(
        self, sequence: TokenSequence, most: int = 4, confidence: float = 0.6
    ) -> None:
        if most < 1 or not 0 <= confidence <= 1:
            raise ValueError(
                "most must be at least 1 and confidence from 0 to 1, got "
                f"most={most}, confidence={confidence}"
            )
        self._sequence = sequence
        self._most = most
        self._least = math.log(confidence) if confidence > 0 else -math.inf
        self._tokens: list[int] = []

    def check(self, model: Model) -> None:
        """The vocabularies must be the same."""
        small = self._sequence.context.model
        if small is model:
            raise ValueError("a model cannot be its own draft: use a smaller one")
        same = small.info.vocab_size == model.info.vocab_size and (
            small.info.special_tokens == model.info.special_tokens
        )
        if not same:
            raise ValueError(
                f"{small!r} cannot guess for {model!r}: their vocabularies differ"
            )

    def start(self, tokens: Sequence[int]) -> None:
        """Remember the prompt."""
        self._tokens = list(tokens)

    def accept(self, tokens: Sequence[int]) -> None:
        """Remember what came next."""
        self._tokens.extend(tokens)

    def predict(self, limit: int) -> Sequence[int]:
        """What the small model would say."""
        limit = min(limit, self._most, self._sequence.size - len(self._tokens))
        if limit < 1:
            return ()
        stream = self._sequence.generate(self._tokens, max_tokens=limit, logprobs=0)
        drawn = [told.drawn for told in stream.result.logprobs]
        sure = [d.logprob >= self._least for d in drawn]
        count = sure.index(False) if False in sure else len(drawn)
        return [d.token for d in drawn[:count]]
