"""Greedy choice; all else core draws, which is as fast and can be repeated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmcore.errors import DecodeError
from llmcore.spi import BackendSampler
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GreedySampler(BackendSampler):
    """The most likely token, which needs no memory and nothing native."""

    def accept(self, token: int) -> None:
        """Greedy choice does not look back."""

    def close(self) -> None:
        """There is nothing to free."""


def create(params: SamplingParams) -> GreedySampler | None:
    """A sampler if these parameters mean the largest logit as it is, else None."""
    plain = params.temperature == 0 and not (params.lookback or params.logit_bias)
    return GreedySampler() if plain else None


def best_token(logits: NDArray[np.float32]) -> int:
    """
    The number of the largest logit, of equals the lowest; errors are those of core.

    Raises:
        DecodeError: A logit is NaN, or all of them are ``-inf``.
    """
    best = int(logits.argmax())  # any NaN comes before all numbers
    value = logits.item(best)
    if value > -math.inf:
        return best
    if math.isnan(value):
        raise DecodeError(
            "the logits contain NaN: the model file is damaged or the engine "
            "cannot compute it on this device; try another file or gpu_layers=0"
        )
    raise DecodeError(
        "no token can be sampled because every logit is -inf: let logit_bias, "
        "min_tokens or the logits processors allow at least one token"
    )
