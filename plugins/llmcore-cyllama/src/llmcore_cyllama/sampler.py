"""Greedy choice and plain random choice by the engine; core draws all else."""

from __future__ import annotations

from typing import Any

from llmcore.spi import BackendSampler
from llmcore.values import SamplingParams
from llmcore_cyllama.engine import C

COLDEST = 0.01
"""Below this temperature logits divided by it could leave the range of float32."""


class CyllamaSampler(BackendSampler):
    """The engine's samplers, none of which looks back; lives until `close`."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.greedy = _chain()
        self.greedy.add_greedy()
        self.chain = self.greedy
        if params.temperature > 0:
            self.chain = _chain()
            _add(self.chain, params, seed)

    def accept(self, token: int) -> None:
        """What was drawn before does not matter."""

    def close(self) -> None:
        """Free both chains."""
        self.chain.close()
        self.greedy.close()


def create(params: SamplingParams, seed: int) -> CyllamaSampler | None:
    """A sampler that draws from the distribution of core's, if there is one."""
    if params.lookback or params.logit_bias:
        return None
    drawn = params.temperature > 0
    if drawn and (
        params.temperature < COLDEST or params.xtc_probability or params.mirostat_tau
    ):
        return None
    return CyllamaSampler(params, seed)


def _chain() -> Any:
    return C.LlamaSampler(C.LlamaSamplerChainParams())


def _add(chain: Any, params: SamplingParams, seed: int) -> None:
    """The steps of `SamplingParams`, in its order."""
    if params.top_k:
        chain.add_top_k(params.top_k)
    if params.typical_p < 1:
        chain.add_typical(params.typical_p, 1)
    if params.top_p < 1:
        chain.add_top_p(params.top_p, 1)
    if params.min_p > 0:
        chain.add_min_p(params.min_p, 1)
    chain.add_temp(params.temperature)
    chain.add_dist(seed)
