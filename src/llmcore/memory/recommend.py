"""
`recommend`: which contexts of a model fit a budget, what they cost, and which is best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, frozen

from llmcore.errors import InsufficientMemoryError
from llmcore.memory.budget import Budget, Limit
from llmcore.memory.choosing import allowed
from llmcore.memory.estimate import Source, estimate, shape_of
from llmcore.memory.footprint import Footprint, size_text
from llmcore.memory.ladder import Plan
from llmcore.memory.shape import ModelShape
from llmcore.params import ContextParams, ModelParams, merge
from llmcore.values import Device

ADVISED_FROM = {"f16": 0, "q8_0": 8192, "q4_0": 32768}
"""
Tokens of a context from which on an element type of its cache is a good choice, best
quality first: the longer it is, the more is saved and the less of it is lost.
"""

LEAST = 2048
"""Tokens of the smallest context that is looked at, if none are named."""


@frozen(kw_only=True)
class Recommendation:
    """
    A context that fits.

    Attributes:
        context: How to create it; its size is a number.

        footprint: What it and its model need, without the headroom of the budget.

        advised: Whether its cache has a type that is a good choice at this length;
            otherwise it just fits.

        why: One line for people.
    """

    context: ContextParams
    footprint: Footprint
    advised: bool
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        context = self.context
        return {
            "context_size": context.context_size,
            "sequences": context.sequences,
            "kv_type_k": context.kv_type_k,
            "kv_type_v": context.kv_type_v,
            "advised": self.advised,
            "why": self.why,
            **self.footprint.as_dict(),
        }


def recommend(
    source: Source,
    budget: Limit | Budget = "auto",
    *,
    context_sizes: Iterable[int] | None = None,
    sequences: Iterable[int] = (1,),
    model: ModelParams | None = None,
    context: ContextParams | None = None,
    devices: Sequence[Device] = (),
    **fields: Any,
) -> list[Recommendation]:
    """
    Say which contexts fit a budget, best first.

    For each length and number of sequences there is one, with the best cache that
    fits. Those whose cache type is advised at their length come first, and of them the
    longest; then those that just fit.

    Args:
        source: A GGUF file, or its header.

        budget: What everything may use together with the headroom of a `Budget`: one,
            or the limit of one; ``"auto"`` is what is free.

        context_sizes: Tokens of a sequence; powers of two from 2048 to the length that
            the model was trained for, if not given.

        sequences: How many at once.

        model: How the model is to be loaded.

        context: How to create the context, but for what is recommended.

        devices: Where layers can go, as `Llama.devices` tells it; none means the CPU.

        fields: Or the fields of `ContextParams` one by one, over ``context``.

    Returns:
        Empty if nothing fits.

    Raises:
        ModelLoadError: It is no GGUF file, or a damaged one.
    """
    advice = _Advice(shape_of(source), budget, model, devices)
    params = merge(ContextParams, context, fields)
    sizes = _lengths(advice.shape) if context_sizes is None else context_sizes
    counts = list(sequences)
    found = [
        one
        for size in sizes
        for count in counts
        if (one := advice.best(evolve(params, context_size=size, sequences=count)))
    ]
    return sorted(found, key=_rank)


def recommend_kv_type(
    source: Source,
    context_size: int,
    budget: Limit | Budget = "auto",
    **others: Any,
) -> Recommendation:
    """
    The best cache type that fits, for one length.

    Args:
        source: A GGUF file, or its header.

        context_size: Tokens of a sequence.

        budget: See `recommend`.

        others: What else `recommend` takes.

    Raises:
        InsufficientMemoryError: Not even the smallest fits.
    """
    found = recommend(source, budget, context_sizes=(context_size,), **others)
    if not found:
        raise InsufficientMemoryError(
            f"no cache of {context_size} tokens fits: choose a smaller context or "
            "model, or raise the budget"
        )
    return found[0]


class _Advice:
    """What is the same for all contexts."""

    def __init__(
        self,
        shape: ModelShape,
        budget: Limit | Budget,
        model: ModelParams | None,
        devices: Sequence[Device],
    ) -> None:
        self.shape, self.model, self.devices = shape, model, devices
        self.budget = budget if isinstance(budget, Budget) else Budget(budget)
        self.budget.learn(devices)

    def best(self, params: ContextParams) -> Recommendation | None:
        """The best cache for a context that fits; None if none does."""
        allows, first = allowed(self.shape), None
        for kind, advised_from in ADVISED_FROM.items():
            made = _with_cache(params, kind)
            if not allows(Plan(context=made)):
                continue
            needed = self._needed(made)
            first = needed if first is None else first
            if self.budget.shortage(needed, "it") is None:
                advised = params.size >= advised_from
                why = _why(kind, advised_from, first, needed)
                return Recommendation(
                    context=made, footprint=needed, advised=advised, why=why
                )
        return None

    def _needed(self, context: ContextParams) -> Footprint:
        return estimate(
            self.shape, model=self.model, context=context, devices=self.devices
        )


def _with_cache(params: ContextParams, kind: str) -> ContextParams:
    """The same with keys and values of a type; values stay without flash attention."""
    values = params.kv_type_v if params.flash_attention is False else kind
    return evolve(params, kv_type_k=kind, kv_type_v=values)


def _why(kind: str, advised_from: int, first: Footprint, needed: Footprint) -> str:
    if needed is first:
        return f"{kind} fits"
    saved = f"f16 would need {size_text(first.total)}"
    return f"{saved}; {kind} is a good choice from {advised_from} tokens on"


def _rank(one: Recommendation) -> tuple[bool, int, int]:
    size, count = one.context.size, one.context.sequences
    return not one.advised, -size * count, -size


def _lengths(shape: ModelShape) -> list[int]:
    trained = shape.trained_context or LEAST
    powers = [LEAST << shift for shift in range(20) if LEAST << shift < trained]
    return [*powers, trained]
