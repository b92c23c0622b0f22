"""
How tokens are drawn: by the engine where that cannot be told from core, else by core.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmcore.engine.callers import call
from llmcore.errors import CapabilityError, DecodeError
from llmcore.events import TokenDrawn, TokenLogprob
from llmcore.spi import BackendContext, BackendSampler
from llmcore.values import Capability, GenerationParams, ModelInfo, SamplingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.engine.sampling import Sampler

Piece = Callable[[int], bytes]


class NativeSamplers:
    """Those of one context, which are freed before it. The engine's thread only."""

    def __init__(self, info: ModelInfo) -> None:
        self._offered = Capability.NATIVE_SAMPLING in info.capabilities
        self._alive: set[BackendSampler] = set()
        self._retired: list[BackendSampler] = []

    def create(
        self, native: BackendContext, params: SamplingParams, seen: Sequence[int]
    ) -> BackendSampler | None:
        """
        A sampler of the engine with this meaning, or None if core must sample.

        Args:
            native: The context.

            params: Without a seed, or greedy: with a seed, every backend must draw
                what core draws.

            seen: The tokens that the penalties already know.
        """
        self.sweep()
        if not self._offered:
            return None
        sampler = native.create_sampler(params, secrets.randbits(32))
        if sampler is not None:
            self._alive.add(sampler)
            for token in seen:
                sampler.accept(token)
        return sampler

    def retire(self, sampler: BackendSampler) -> None:
        """It is not needed any more; freed when the context is next used."""
        self._retired.append(sampler)

    def sweep(self) -> None:
        """Free the retired ones."""
        while self._retired:
            self._close(self._retired.pop())

    def close(self) -> None:
        """Free all; by whoever disposes the context."""
        for sampler in list(self._alive):
            self._close(sampler)

    def _close(self, sampler: BackendSampler) -> None:
        if sampler in self._alive:
            self._alive.discard(sampler)
            sampler.close()


class Drawer:
    """
    Draws the tokens of one answer.

    Args:
        native: The context.

        samplers: Of the context.

        info: Of the model.

        params: How to choose.

        options: What else matters for it.

        prompt: All of it, for the penalties.

        piece: Bytes of a token.
    """

    def __init__(
        self,
        native: BackendContext,
        samplers: NativeSamplers,
        info: ModelInfo,
        params: SamplingParams,
        options: GenerationParams,
        prompt: Sequence[int],
        piece: Piece,
    ) -> None:
        self._samplers = samplers
        self._processors = options.logits_processors
        self._logprobs = options.logprobs
        self._piece = piece
        self._vocab_size = info.vocab_size
        self._native: BackendSampler | None = None
        self._core: Sampler | None = None
        self.last_logprob: TokenDrawn | None = None
        window = params.lookback
        seen = prompt[-window:] if window else ()
        plain = not (options.logits_processors or options.min_tokens)
        if plain and (params.seed is None or params.temperature == 0):
            self._native = samplers.create(native, params, seen)
        needs_logits = self._native is None or options.logprobs is not None
        if needs_logits and Capability.LOGITS not in info.capabilities:
            raise CapabilityError(
                "the backend has no logits, and cannot choose a token by these "
                "parameters itself: use fewer of them, or another backend"
            )
        if self._native is None:
            from llmcore.engine.sampling import Sampler

            self._core = Sampler(params, piece=piece)
            for token in seen:
                self._core.accept(token)

    @property
    def seed(self) -> int | None:
        """The seed of core's sampler; None if the engine draws."""
        return None if self._core is None else self._core.seed

    def draw(
        self,
        native: BackendContext,
        row: int,
        tokens: Callable[[], Sequence[int]],
        banned: frozenset[int],
    ) -> int:
        """
        The next token after a row.

        Args:
            native: The context.

            row: An output of the last batch.

            tokens: All tokens so far, for logits processors.

            banned: Must not be drawn.
        """
        if self._native is not None:
            token = native.sample(row, self._native)
        else:
            token = self._draw(native, row, tokens, banned)
        if self._logprobs is not None:
            self.last_logprob = self._tell(native.logits(row), token, self._logprobs)
        return token

    def _draw(
        self,
        native: BackendContext,
        row: int,
        tokens: Callable[[], Sequence[int]],
        banned: frozenset[int],
    ) -> int:
        assert self._core is not None
        logits = native.logits(row)
        if self._processors:
            logits = self._processed(logits.copy(), tokens())
        return self._core.sample(logits, banned)

    def _processed(
        self, logits: NDArray[np.float32], tokens: Sequence[int]
    ) -> NDArray[np.float32]:
        import numpy as np

        for processor in self._processors:
            changed: Any = call(processor, tokens, logits)
            if changed is not None:
                logits = np.asarray(changed, np.float32)
            if logits.shape != (self._vocab_size,):
                raise DecodeError(
                    f"logits processor {processor!r} returned the shape "
                    f"{logits.shape}: it must be ({self._vocab_size},)"
                )
        return logits

    def _tell(self, logits: NDArray[np.float32], token: int, top: int) -> TokenDrawn:
        from llmcore.engine.logprobs import logprobs

        own, best = logprobs(logits, token, top)
        return TokenDrawn(
            drawn=TokenLogprob(token=token, piece=self._piece(token), logprob=own),
            top=tuple(
                TokenLogprob(token=other, piece=self._piece(other), logprob=value)
                for other, value in best
            ),
        )

    def close(self) -> None:
        """It is not needed any more."""
        native, self._native = self._native, None
        if native is not None:
            self._samplers.retire(native)
