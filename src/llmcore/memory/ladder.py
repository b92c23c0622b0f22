"""
The ladder: what is given up, step by step, when memory is short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import evolve, field, frozen

from llmcore.memory.budget import EVERYTHING
from llmcore.memory.footprint import Footprint
from llmcore.memory.shortage import Shortage
from llmcore.params import KV_TYPES, ContextParams, ModelParams

LEAST_BATCH = 64
"""Tokens: below it, prompts are evaluated slowly and hardly a byte is gained."""

LEAST_CONTEXT = 512
"""Tokens: a chat in less than that makes no sense, so nobody gets it unasked."""

SMALLER_TYPE = {
    "f32": "f16",
    "f16": "q8_0",
    "bf16": "q8_0",
    "q8_0": "q4_0",
    "q5_1": "q4_0",
    "q5_0": "q4_0",
    "q4_1": "q4_0",
}
"""The next element type of a cache, of those that cost the least quality."""


@frozen(kw_only=True)
class Plan:
    """
    How a model is to be loaded and a context to be created.

    Attributes:
        model: How to load.

        context: How to create.

        pinned: Names of the fields of both that nobody may change: those that the
            caller gave, and those of what exists already.

        least_context: Tokens of a sequence, below which no step goes.

        evicted: Bytes that others gave back for it.
    """

    model: ModelParams = field(factory=ModelParams)
    context: ContextParams = field(factory=ContextParams)
    pinned: frozenset[str] = frozenset()
    least_context: int = LEAST_CONTEXT
    evicted: int = 0

    def with_model(self, **fields: object) -> Plan:
        """The same but for some fields of `ModelParams`."""
        return evolve(self, model=evolve(self.model, **fields))  # type: ignore[arg-type]

    def with_context(self, **fields: object) -> Plan:
        """The same but for some fields of `ContextParams`."""
        return evolve(self, context=evolve(self.context, **fields))  # type: ignore[arg-type]


@frozen(kw_only=True)
class Room:
    """
    What a step may ask.

    Attributes:
        estimate: What a plan needs; None if nobody can say.

        shortage: Why so much does not fit; None if it does.

        allows: Whether the engine takes a plan at all.

        layers: Layers of the model with its output: all that can go to a GPU; 0 if
            there is none.
    """

    estimate: Callable[[Plan], Footprint] | None = None
    shortage: Callable[[Footprint], Shortage | None] = lambda footprint: None
    allows: Callable[[Plan], bool] = lambda plan: True
    layers: int = 0

    def needs(self, plan: Plan) -> Footprint:
        """Its bytes, none if nobody can say."""
        return Footprint() if self.estimate is None else self.estimate(plan)

    def short(self, plan: Plan) -> Shortage | None:
        """Why it does not fit; None if it does, or if nobody can say."""
        return self.shortage(self.needs(plan))


class Step(Protocol):
    """
    One way to need less memory. A ladder is a sequence of them, in their order.

    Attributes:
        name: A few words for people.
    """

    @property
    def name(self) -> str: ...

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        """
        The next smaller plan by this way; None if there is nothing left to give.

        It is asked again with its own answer until it says None, or until its answer
        gains nothing. It must leave alone what is pinned.
        """


@frozen
class EvictIdle:
    """
    Have others give back what they do not use; for whoever owns several models.

    Attributes:
        evict: Called with the bytes that are missing; returns how many it freed, 0 if
            nobody is idle.
    """

    evict: Callable[[int], int]
    name: str = "evict idle"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        short = room.short(plan)
        wanted = sum(lacking(short).values()) if short else room.needs(plan).total
        freed = self.evict(wanted)
        return evolve(plan, evicted=plan.evicted + freed) if freed > 0 else None


@frozen
class SmallerBatch:
    """Halve ``batch_size`` and ``micro_batch_size``: smaller working buffers."""

    name: str = "smaller batch"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        least = max(LEAST_BATCH, plan.context.sequences)
        smaller = {
            name: max(least, size // 2)
            for name in ("batch_size", "micro_batch_size")
            if name not in plan.pinned and (size := getattr(plan.context, name)) > least
        }
        return plan.with_context(**smaller) if smaller else None


@frozen
class SmallerCacheType:
    """
    The next smaller element type for keys or values, whichever is the larger.

    Values go first: quality suffers less from them than from keys.
    """

    name: str = "smaller cache type"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        fields = ["kv_type_v", "kv_type_k"]
        fields.sort(key=lambda name: KV_TYPES.index(getattr(plan.context, name)))
        for name in fields:
            kind = SMALLER_TYPE.get(getattr(plan.context, name))
            if kind is None or name in plan.pinned or _no_values(plan, name, kind):
                continue
            smaller = plan.with_context(**{name: kind})
            if room.allows(smaller):
                return smaller
        return None


def _no_values(plan: Plan, name: str, kind: str) -> bool:
    """Whether they would be quantised values without flash attention."""
    without = plan.context.flash_attention is False
    return name == "kv_type_v" and without and kind.startswith("q")


@frozen
class SmallerContext:
    """Halve ``context_size``, not below `Plan.least_context`."""

    name: str = "smaller context"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        size = plan.context.context_size
        least = plan.least_context
        if not isinstance(size, int) or size <= least or "context_size" in plan.pinned:
            return None
        return plan.with_context(context_size=max(least, size // 2))


@frozen
class FewerGpuLayers:
    """
    As many layers on the GPU as fit by the estimate; no step to none at all.

    Where the estimate was too low, as the engine has just shown, three quarters.
    """

    name: str = "fewer GPU layers"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        layers = plan.model.gpu_layers
        now = room.layers if layers == "auto" else min(layers, room.layers)
        if now < 2 or "gpu_layers" in plan.pinned:
            return None
        if room.short(plan) is None:
            return plan.with_model(gpu_layers=now * 3 // 4)
        return most_layers(plan, room, now - 1)


@frozen
class ToCpu:
    """No layer on a GPU, and no cache."""

    name: str = "CPU"

    def apply(self, plan: Plan, room: Room) -> Plan | None:
        made = plan
        if not room.layers:
            return None
        if "gpu_layers" not in plan.pinned and plan.model.gpu_layers != 0:
            made = made.with_model(gpu_layers=0)
        if "offload_kv" not in plan.pinned and plan.context.offload_kv:
            made = made.with_context(offload_kv=False)
        return None if made == plan else made


LADDER: tuple[Step, ...] = (
    SmallerBatch(),
    SmallerCacheType(),
    SmallerContext(),
    FewerGpuLayers(),
    ToCpu(),
)
"""The usual order; a manager puts `EvictIdle` in front."""


def most_layers(plan: Plan, room: Room, most: int) -> Plan | None:
    """With as many layers on the GPU as fit, up to ``most``; None if not one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if room.short(plan.with_model(gpu_layers=middle)) is None:
            low = middle
        else:
            high = middle - 1
    return plan.with_model(gpu_layers=low) if low else None


def lacking(shortage: Shortage) -> Mapping[str, int]:
    """Bytes that are not free, headroom included, by the name of the pool."""
    footprint, share = shortage.footprint, 1 + shortage.headroom
    needs = {**footprint.devices, EVERYTHING: footprint.total}
    return {
        pool.name: lack
        for pool in shortage.pools
        if pool.free is not None
        and (lack := round(needs.get(pool.name, 0) * share) - pool.free) > 0
    }
