"""
Mamba (Gu and Dao 2023, arXiv:2312.00752): no attention; each layer carries a state from
token to token, and the token says how much of it to keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from llmcore.backends.reference.gguf_file import (
    Array,
    InvalidModelError,
    Settings,
    Weights,
)
from llmcore.backends.reference.network import Block, Decoder, Step
from llmcore.backends.reference.numerics import rms_norm, silu, softplus
from llmcore.backends.reference.recurrent import RecurrentCache, State
from llmcore.values import CacheKind


class MambaBlock(Block):
    """One layer."""

    def __init__(self, settings: Settings, weights: Weights, block: str) -> None:
        width = settings.integer("embedding_length")
        inner = settings.integer("ssm.inner_size")
        kernel = settings.integer("ssm.conv_kernel")
        self._state = state = settings.integer("ssm.state_size")
        self._rank = rank = settings.integer("ssm.time_step_rank")
        self._epsilon = settings.number("attention.layer_norm_rms_epsilon")
        self._norm = weights.take(f"{block}attn_norm.weight", width)
        self._in = weights.linear(f"{block}ssm_in", 2 * inner, width)
        self._kernel = weights.take(f"{block}ssm_conv1d.weight", inner, kernel)
        self._kernel_bias = weights.take(f"{block}ssm_conv1d.bias", inner)
        self._select = weights.linear(f"{block}ssm_x", rank + 2 * state, inner)
        self._step = weights.linear(f"{block}ssm_dt", inner, rank)
        self._decay = weights.take(f"{block}ssm_a", inner, state)
        self._skip = weights.take(f"{block}ssm_d", inner)
        self._out = weights.linear(f"{block}ssm_out", width, inner)
        self.first = State(
            np.zeros((kernel - 1, inner), np.float32),
            np.zeros((inner, state), np.float32),
        )

    def __call__(self, x: Array, step: Step, layer: int) -> Array:
        """The state space model, gated by the other half of the projected input."""
        inputs, gate = np.split(self._in(rms_norm(x, self._norm, self._epsilon)), 2, -1)
        y = np.empty_like(inputs)
        for rows, cache in step.parts:
            y[rows], state = self._run(inputs[rows], cache.read(layer))
            cache.write(layer, state)
        return x + self._out(y * silu(gate))

    def _run(self, inputs: Array, state: State) -> tuple[Array, State]:
        """One sequence, token after token; shapes (rows, inner)."""
        rows, kernel = len(inputs), self._kernel.shape[1]
        series = np.concatenate([state.inputs, inputs])
        taps = np.stack([series[k : k + rows] for k in range(kernel)], axis=-1)
        u = silu(np.sum(taps * self._kernel, axis=-1) + self._kernel_bias)
        low, b, c = np.split(
            self._select(u), [self._rank, self._rank + self._state], axis=-1
        )
        delta = softplus(self._step(low))
        memory, y = state.memory, np.empty_like(u)
        for t in range(rows):
            keep = np.exp(delta[t][:, None] * self._decay)
            memory = memory * keep + (delta[t] * u[t])[:, None] * b[t]
            y[t] = memory @ c[t]
        return y + u * self._skip, State(series[rows:].copy(), memory)


class Architecture(Decoder):
    """The whole network."""

    kind = CacheKind.RECURRENT
    blocks: Sequence[MambaBlock]

    def __init__(self, settings: Settings, weights: Weights) -> None:
        super().__init__(settings, weights)
        if settings.flag("mamba.ssm.dt_b_c_rms", False):
            raise InvalidModelError("the FalconMamba variant is not known here")
        self.blocks = [
            MambaBlock(settings, weights, f"blk.{layer}.")
            for layer in range(settings.integer("block_count"))
        ]

    def create_cache(
        self, length: int, types: tuple[DTypeLike, DTypeLike]
    ) -> RecurrentCache:
        """A state for each layer, always of 32-bit floats."""
        return RecurrentCache([block.first for block in self.blocks], length)
