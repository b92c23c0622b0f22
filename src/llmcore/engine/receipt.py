"""
`Receipt`: with what an answer can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from attrs import asdict, frozen

from llmcore.errors import StateMismatchError
from llmcore.values import (
    ContextParams,
    GenerationParams,
    ModelInfo,
    SamplingParams,
    evolve,
)

CONTEXT_FIELDS = (
    *("context_size", "batch_size", "micro_batch_size", "threads", "threads_batch"),
    *("kv_type_k", "kv_type_v", "flash_attention", "deterministic"),
)
"""Those parameters of a context on which the numbers of an evaluation depend."""

OPTION_FIELDS = ("max_tokens", "min_tokens", "stop", "stop_tokens", "ignore_eos")


@frozen(kw_only=True)
class Receipt:
    """
    What an answer depended on; see `Sequence.replay`.

    An exact repetition is promised for contexts with ``deterministic=True``. On others
    the engine may round differently in another batch.

    Attributes:
        build: Engine and version.

        model: Fingerprint of the weights.

        context: The parameters of the context that matter.

        sampling: How tokens were chosen, with the seed that was really used.

        options: When the answer was to end.

        prompt: All of its tokens.

        tokens: Those that were drawn.

        obstacle: Why it cannot be repeated; empty if it can.
    """

    build: str
    model: str
    context: Mapping[str, Any]
    sampling: SamplingParams
    options: Mapping[str, Any]
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    obstacle: str = ""

    @classmethod
    def of(
        cls,
        info: ModelInfo,
        params: ContextParams,
        sampling: SamplingParams,
        options: GenerationParams,
        *,
        seed: int | None,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> Self:
        """The receipt of an answer; ``seed`` is that of core's sampler, if it drew."""
        obstacle = ""
        if options.logits_processors:
            obstacle = "its logits processors are code, which a receipt cannot hold"
        elif options.overflow != "error":
            obstacle = "old tokens may have been dropped on the way"
        elif seed is None and sampling.temperature > 0:
            obstacle = "the engine drew with a seed of its own: give one"
        elif seed is not None:
            sampling = evolve(sampling, seed=seed)
        return cls(
            build=info.build,
            model=info.fingerprint,
            context={name: getattr(params, name) for name in CONTEXT_FIELDS},
            sampling=sampling,
            options={name: getattr(options, name) for name in OPTION_FIELDS},
            prompt=tuple(prompt),
            tokens=tuple(tokens),
            obstacle=obstacle,
        )

    def check(self, info: ModelInfo, params: ContextParams) -> None:
        """
        Raises:
            ValueError: It cannot be repeated at all; says why.

            StateMismatchError: Not here; names what differs.
        """
        if self.obstacle:
            raise ValueError(f"the receipt cannot be replayed: {self.obstacle}")
        here = {name: getattr(params, name) for name in CONTEXT_FIELDS}
        pairs = {
            "build": (self.build, info.build),
            "model": (self.model, info.fingerprint),
            **{name: (self.context.get(name), here[name]) for name in here},
        }
        for name, (then, now) in pairs.items():
            if then != now:
                raise StateMismatchError(name, then, now, "receipt")

    def to_json(self) -> str:
        """As text, for a log or a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        Raises:
            ValueError: It is not a receipt.
        """
        try:
            values = json.loads(text)
            sampling = values.pop("sampling")
            bias = {int(n): float(b) for n, b in sampling.pop("logit_bias").items()}
            for name in ("prompt", "tokens"):
                values[name] = tuple(map(int, values[name]))
            return cls(sampling=SamplingParams(**sampling, logit_bias=bias), **values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is not a receipt: {error}") from error
