"""
What several tests do with the subject: answers that compare, narrowed backends, and
the bare seam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Tokens
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from llmcore import Backend, Model, SamplingParams, Sequence
from llmcore.spi import BackendContext, BackendModel, Batch, Progress
from llmcore.values import (
    Capability,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
)
from llmcore_conformance.target import Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = 256
"""Tokens that a sequence holds in most tests."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""For models that have no template of their own."""


def endless(model: Model, **fields: Any) -> SamplingParams:
    """Parameters, greedy unless ``fields`` say otherwise, that never draw an end."""
    bias = dict.fromkeys(model.info.end_tokens, -math.inf)
    return SamplingParams(logit_bias=bias, **fields)


def answer(
    sequence: Sequence, prompt: Tokens[int], count: int = 8, **fields: Any
) -> tuple[int, ...]:
    """The first ``count`` tokens that follow a prompt, greedy unless told."""
    params = endless(sequence.context.model, **fields)
    return sequence.generate(prompt, params, max_tokens=count).result.tokens[:count]


class FreshAnswers:
    """
    What a new sequence on a new instance of the engine answers: the measure for all
    sequences that are to work as new. Lives as long as the session.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __call__(self, prompt: Tokens[int], count: int = 8) -> tuple[int, ...]:
        """The first ``count`` tokens, greedy."""
        key = tuple(prompt)
        if len(self._known.get(key, ())) < count:
            self._known[key] = self._ask(prompt, max(count, 16))
        return self._known[key][:count]

    def _ask(self, prompt: Tokens[int], count: int) -> tuple[int, ...]:
        with self._target.open() as llama:
            context = self._target.load(llama).create_context(
                context_size=SIZE, threads=1
            )
            return answer(context.get_sequence(), prompt, count)


class Seam:
    """
    The backend itself, without core; for capabilities that show only there.

    Args:
        target: Whose backend.
    """

    def __init__(self, target: Target) -> None:
        self._backend = target.create()
        self.model = self._backend.load_model(
            target.model_path, ModelParams(), lambda share: True
        )
        self._contexts: list[BackendContext] = []

    def context(self) -> BackendContext:
        """A new context with one sequence."""
        params = ContextParams(context_size=SIZE, sequences=1, threads=1)
        self._contexts.append(self.model.create_context(params))
        return self._contexts[-1]

    def feed(self, context: BackendContext, tokens: Tokens[int]) -> NDArray[np.float32]:
        """
        Append tokens to sequence 0 of a context.

        Returns:
            The logits that follow; of an engine without logits, its greedy token.
        """
        import numpy as np

        start, count = context.bounds(0)[1] + 1, len(tokens)
        outputs = [*[False] * (count - 1), True]
        positions = range(start, start + count)
        context.decode(Batch(tokens, positions, [0] * count, outputs))
        if Capability.LOGITS in self.model.info.capabilities:
            return context.logits(count - 1).copy()
        sampler = context.create_sampler(SamplingParams(), 1)
        if sampler is None:
            return np.empty(0, np.float32)
        token = context.sample(count - 1, sampler)
        sampler.close()
        return np.array([token], np.float32)

    def close_context(self, context: BackendContext) -> None:
        """Close one early."""
        self._contexts.remove(context)
        context.close()

    def close(self) -> None:
        """Close everything, in order."""
        for context in list(self._contexts):
            self.close_context(context)
        self.model.close()
        self._backend.close()


def narrowed(target: Target, capabilities: frozenset[Capability]) -> Target:
    """The same target, which declares only these of its capabilities."""
    info = target.describe()
    info = evolve(info, capabilities=info.capabilities & capabilities)
    return evolve(
        target,
        create=lambda: NarrowBackend(target.create(), capabilities),
        describe=lambda: info,
    )


class NarrowBackend(Backend):
    """Passes everything on, but its models declare fewer capabilities."""

    def __init__(self, real: Backend, capabilities: frozenset[Capability]) -> None:
        self._real = real
        self._capabilities = capabilities

    def devices(self) -> Tokens[Device]:
        return self._real.devices()

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> BackendModel:
        real = self._real.load_model(path, params, progress)
        return NarrowModel(real, self._capabilities)

    def close(self) -> None:
        self._real.close()


class NarrowModel(BackendModel):
    """The model of a `NarrowBackend`; its contexts are the real ones."""

    def __init__(self, real: BackendModel, capabilities: frozenset[Capability]) -> None:
        self._real = real
        declared = real.info.capabilities & capabilities
        self._info = evolve(real.info, capabilities=declared)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        return self._real.tokenize(text)

    def piece(self, token: int) -> bytes:
        return self._real.piece(token)

    def create_context(self, params: ContextParams) -> BackendContext:
        return self._real.create_context(params)

    def close(self) -> None:
        self._real.close()
