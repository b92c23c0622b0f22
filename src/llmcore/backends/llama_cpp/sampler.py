"""The engine's samplers, where they mean what `SamplingParams` means."""

from __future__ import annotations

from typing import Any

from llmcore.backends.llama_cpp.native import C
from llmcore.spi import BackendSampler
from llmcore.values import SamplingParams

RANDOM_SEED = 0xFFFFFFFF
"""To the engine this seed means: draw one."""

LONGEST_PENALTY = 1 << 20
"""The engine allocates this many at once, and the process dies if it cannot."""

SMALLEST = 1e-20
"""Logits divided by less leave the range of 32-bit floats, in which it computes."""

LARGEST = 1e30
"""A bias above this is infinite for it, and drawing among infinite logits fails."""


class GreedySampler(BackendSampler):
    """The most likely token, which needs no memory and nothing native."""

    def accept(self, token: int) -> None:
        """Greedy choice does not look back."""

    def close(self) -> None:
        """There is nothing to free."""


class ChainSampler(BackendSampler):
    """A chain of native samplers; lives as long as a generation."""

    def __init__(self, params: SamplingParams, seed: int, vocab_size: int) -> None:
        self._counts = params.has_penalties
        chain_params = C.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self.chain = C.llama_sampler_chain_init(chain_params)
        for part in _parts(params, seed, vocab_size):
            C.llama_sampler_chain_add(self.chain, part)  # the chain owns it now

    def accept(self, token: int) -> None:
        """Count a token, if anything in the chain counts."""
        if self._counts:
            C.llama_sampler_accept(self.chain, token)

    def close(self) -> None:
        """Free the chain and all that is in it."""
        chain = self.chain
        del self.chain
        C.llama_sampler_free(chain)


def create(params: SamplingParams, seed: int, vocab_size: int) -> BackendSampler | None:
    """The native sampler of exactly this meaning, or None if there is none."""
    drawn = params.temperature > 0
    if drawn and (seed == RANDOM_SEED or params.temperature < SMALLEST):
        return None
    if not (
        params.is_basic and _can_bias(params, vocab_size) and _can_penalise(params)
    ):
        return None
    if not (drawn or params.has_penalties or params.logit_bias):
        return GreedySampler()
    return ChainSampler(params, seed, vocab_size)


def _can_bias(params: SamplingParams, vocab_size: int) -> bool:
    """
    Whether each bias works as it should.

    The engine ignores those outside the vocabulary, and draws a forbidden token when
    all are forbidden.
    """
    bias = params.logit_bias
    return len(bias) < vocab_size and all(
        token < vocab_size and (params.temperature == 0 or value <= LARGEST)
        for token, value in bias.items()
    )


def _can_penalise(params: SamplingParams) -> bool:
    return not params.has_penalties or (
        params.penalty_last_n <= LONGEST_PENALTY and params.repeat_penalty >= SMALLEST
    )


def _parts(params: SamplingParams, seed: int, vocab_size: int) -> list[Any]:
    parts = []
    if params.logit_bias:
        pairs = params.logit_bias.items()
        biases = (C.llama_logit_bias * len(pairs))(*pairs)
        parts.append(C.llama_sampler_init_logit_bias(vocab_size, len(pairs), biases))
    if params.has_penalties:
        parts.append(
            C.llama_sampler_init_penalties(
                vocab_size,
                params.penalty_last_n,
                params.repeat_penalty,
                params.frequency_penalty,
                params.presence_penalty,
            )
        )
    if params.temperature == 0:
        return [*parts, C.llama_sampler_init_greedy()]
    if params.top_k:
        parts.append(C.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1:
        parts.append(C.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p:
        parts.append(C.llama_sampler_init_min_p(params.min_p, 1))
    parts.append(C.llama_sampler_init_temp(params.temperature))
    return [*parts, C.llama_sampler_init_dist(seed)]
