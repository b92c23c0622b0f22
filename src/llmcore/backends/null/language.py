"""
What the null model says: pure functions of the cache contents.

The next token is a hash of all positions and tokens that a sequence holds, so that
one stale or missing cell changes the text that follows.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

from llmcore.backends.null import vocabulary

_LETTERS = b"aaabcdeeeefghiiijklmnnooopqrrssstttuuvwxyz      "
_CHOICES: tuple[int, ...] = (*_LETTERS, *range(256, 256 + len(vocabulary.WORDS) - 1))
_PRINTABLE = frozenset({10, *range(32, 127), *range(256, vocabulary.FIRST_CONTROL)})
_LEVELS = [0.0 if n in _PRINTABLE else -8.0 for n in range(vocabulary.FIRST_CONTROL)]
"""What the noise in the logit of each token is added to."""

BEST_LOGIT = 6.0
"""Of the next token; printable tokens lie in 0 to 4, other bytes in -8 to -4."""

CONTROL_LOGIT = -16.0
_CONTROLS = [CONTROL_LOGIT] * (vocabulary.VOCAB_SIZE - vocabulary.FIRST_CONTROL)


def next_token(seed: int, cached: Sequence[int], answer: str | None) -> int:
    """
    The most likely next token.

    Args:
        seed: Hash of the cache contents.

        cached: The tokens the cache holds, oldest first.

        answer: A scripted text, or None for readable nonsense without an end. It is
            continued from its longest start that the cache ends with; after the
            whole of it comes the end token.
    """
    if answer is None:
        return _CHOICES[seed % len(_CHOICES)]
    wanted = [*vocabulary.tokenize(answer.encode()), vocabulary.END_OF_TURN]
    said = min(len(wanted) - 1, len(cached))
    while list(cached[len(cached) - said :]) != wanted[:said]:
        said -= 1
    return wanted[said]


def logits(seed: int, best: int) -> array[float]:
    """
    A distribution over the vocabulary with a clear maximum, as 32-bit floats.

    Args:
        seed: Hash of the cache contents.

        best: The token that gets `BEST_LOGIT`.
    """
    noise = random.Random(seed).random
    values = array("f", [4 * noise() + level for level in _LEVELS] + _CONTROLS)
    values[best] = BEST_LOGIT
    return values


def embedding(seed: int, size: int) -> array[float]:
    """A vector of 32-bit floats between -1 and 1, not normalised."""
    noise = random.Random(seed)
    return array("f", [2 * noise.random() - 1 for _ in range(size)])
