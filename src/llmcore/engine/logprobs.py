"""
What the model itself thinks of its tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmcore.engine.distribution import best_token, largest, log_softmax, possible


def logprobs(
    logits: NDArray[np.float32], token: int, top: int
) -> tuple[float, list[tuple[int, float]]]:
    """
    Log probability of a token, and of the most likely ones.

    Natural logarithms of the softmax of the logits, computed in float64; ``-inf`` for
    impossible tokens. They sum to a probability of 1 over the vocabulary.

    Args:
        logits: Shape ``(vocab_size,)``, as the model gave them; not changed.

        token: Its number.

        top: How many of the most likely ones to tell; may be more than there are.

    Returns:
        That of ``token``, and pairs of number and log probability, the most likely
        first, of equals the lowest number.

    Raises:
        DecodeError: A logit is NaN, or all of them are ``-inf``.
    """
    best_token(logits)
    tokens, values = possible(logits)
    every = np.full(logits.size, -np.inf)
    every[tokens] = log_softmax(values)
    best = largest(every, top) if top else tokens[:0]
    best = best[np.argsort(-every[best], kind="stable")]
    return float(every[token]), [(int(other), float(every[other])) for other in best]
