"""The native sampler of the null backend: `SamplingParams` in plain Python."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcore.errors import DecodeError
from llmcore.spi import BackendSampler
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from llmcore.backends.null.context import NullContext


def expresses(params: SamplingParams, vocab_size: int) -> bool:
    """Whether this sampler means the same as core's with these parameters."""
    return params.is_basic and all(
        token < vocab_size and bias < math.inf
        for token, bias in params.logit_bias.items()
    )


class NullSampler(BackendSampler):
    """Draws tokens for one sequence; lives within its context."""

    def __init__(self, context: NullContext, params: SamplingParams, seed: int) -> None:
        self.context = context
        self.handle = context.ledger.allocate(
            "sampler", context.handle, lane=context.handle.lane
        )
        self._params = params
        self._random = random.Random(seed)
        self._recent: list[int] = []

    def accept(self, token: int) -> None:
        with self.context.ledger.use(self.handle, "accept", exclusive=True):
            self.context.perform("accept")
            self.remember(token)

    def close(self) -> None:
        with self.context.ledger.close(self.handle, "close_sampler", exclusive=True):
            self.context.perform("close_sampler")

    def remember(self, token: int) -> None:
        """Count a token for the penalties."""
        self._recent.append(token)
        del self._recent[: -self._params.penalty_last_n or len(self._recent)]

    def draw(self, logits: Sequence[float]) -> int:
        """Choose a token, without accepting it."""
        values = self._adjust(logits)
        top = values.index(max(values))
        if values[top] == -math.inf:
            raise DecodeError(
                "no token can be sampled because every logit is -inf: "
                "let logit_bias allow at least one token"
            )
        if self._params.temperature == 0:
            return top
        ranked = sorted(range(len(values)), key=lambda token: (-values[token], token))
        kept = self._filter(ranked, values)
        heat = self._params.temperature
        best = values[kept[0]]
        weights = [math.exp((values[token] - best) / heat) for token in kept]
        return self._random.choices(kept, weights)[0]

    def _adjust(self, logits: Sequence[float]) -> list[float]:
        params, values = self._params, list(logits)
        for token, bias in params.logit_bias.items():
            values[token] += bias
        for token, count in Counter(self._recent).items():
            value, factor = values[token], params.repeat_penalty
            value = value / factor if value > 0 else value * factor
            values[token] = (
                value - count * params.frequency_penalty - params.presence_penalty
            )
        return values

    def _filter(self, ranked: list[int], values: list[float]) -> list[int]:
        params = self._params
        kept = ranked[: params.top_k] if params.top_k else ranked
        best = values[kept[0]]
        shares = [math.exp(values[token] - best) for token in kept]
        goal, reached, count = params.top_p * math.fsum(shares), 0.0, 0
        while count < len(kept) and (reached < goal or count == 0):
            reached += shares[count]
            count += 1
        return [
            t for t, s in zip(kept[:count], shares, strict=False) if s >= params.min_p
        ]
