"""
What ``"auto"`` and ranges come to, and what an engine's cache types need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import fields as attrs_fields

from llmcore.errors import ParameterError
from llmcore.memory.budget import Budget, Reservation, Share
from llmcore.memory.cache import AUTO_CONTEXT_SIZE, BLOCKS, PADDING
from llmcore.memory.fitting import Fitted, ladder_of, retrying
from llmcore.memory.footprint import Footprint
from llmcore.memory.ladder import LEAST_CONTEXT, Plan, Room, Step, most_layers
from llmcore.memory.limits import process_shortage
from llmcore.memory.shape import ModelShape
from llmcore.memory.shortage import Shortage
from llmcore.params import ContextParams, ModelParams
from llmcore.plugins.gpu import gpus_of
from llmcore.values import Device

logger = logging.getLogger("llmcore.memory")

T = TypeVar("T")

MODEL_FIELDS = frozenset(a.name for a in attrs_fields(ModelParams))
CONTEXT_FIELDS = frozenset(a.name for a in attrs_fields(ContextParams))


def given(kind: type[Any], params: object, fields: Mapping[str, Any]) -> frozenset[str]:
    """
    The fields that a caller gave: those that stand alone, and those of a whole object
    that are not the default. What is left to be chosen (``"auto"``, a range) is not
    among them.
    """
    names = set(fields)
    if params is not None:
        names |= {
            a.name for a in attrs_fields(kind) if getattr(params, a.name) != a.default
        }
    values = {name: fields.get(name, getattr(params, name, None)) for name in names}
    return frozenset(
        name
        for name, value in values.items()
        if value != "auto" and not isinstance(value, tuple)
    )


def gpu_layers(shape: ModelShape | None, devices: Iterable[Device]) -> int:
    """For `Room.layers`: all layers and the output, 0 without a GPU to place them."""
    if shape is None or not gpus_of(devices):
        return 0
    return len(shape.layers) + 1


def free_now(devices: Iterable[Device]) -> Budget:
    """A budget of what is free at the moment, for a choice without one."""
    budget = Budget("auto")
    budget.learn(device for device in devices if device.total)
    return budget


def shortages(
    what: str, budget: Budget | Share | None, within: Reservation | None = None
) -> Callable[[Footprint], Shortage | None]:
    """
    Why bytes do not fit: the limits of this process come first, then the budget.

    Args:
        what: Whom they are for, in words.

        budget: None for no more than the limits.

        within: A reservation of it to take them from.
    """
    owner = budget.budget if isinstance(budget, Share) else budget

    def short(footprint: Footprint) -> Shortage | None:
        found = process_shortage(footprint, what)
        if found is None and owner is not None:
            found = owner.shortage(footprint, what, within=within)
        return found

    return short


# -- contexts --------------------------------------------------------------------------


def context_plan(
    params: ContextParams, pinned: frozenset[str], trained: int = 0
) -> Plan:
    """
    The plan for a context on a model that is loaded; asks for the most that it may get.

    Args:
        params: As the caller gave them.

        pinned: Names of the fields that may not change; see `given`.

        trained: Tokens that the model was trained for, 0 if nobody knows. A range ends
            there, unless it starts above.
    """
    size = params.context_size
    known = trained or AUTO_CONTEXT_SIZE
    if size == "auto":
        most = min(known, AUTO_CONTEXT_SIZE)
        least = min(most, LEAST_CONTEXT)
    elif isinstance(size, tuple):
        least, most = size[0], max(size[0], min(size[1], trained or size[1]))
    else:
        least = most = size
    plan = Plan(context=params, pinned=pinned | MODEL_FIELDS, least_context=least)
    return plan.with_context(context_size=most)


def largest_context(plan: Plan, room: Room) -> Plan:
    """
    With the largest context that fits, from `Plan.least_context` to what it has; with
    the least if not even that fits.
    """
    most, least = plan.context.size, plan.least_context
    if most <= least or room.short(plan) is None:
        return plan
    low, high = least // PADDING, (most - 1) // PADDING
    while low < high:
        middle = (low + high + 1) // 2
        if room.short(plan.with_context(context_size=middle * PADDING)) is None:
            low = middle
        else:
            high = middle - 1
    return plan.with_context(context_size=max(least, low * PADDING))


def create(
    plan: Plan,
    attempt: Callable[[Plan], T],
    room: Room,
    fit: Sequence[Step] | bool = False,
    *,
    what: str = "the context",
) -> tuple[T, Fitted]:
    """
    Create a context: without a ladder the largest that fits, else by its steps.

    Args:
        plan: Of `context_plan`.

        attempt: Creates it.

        room: What there is.

        fit: The ladder, True for the usual one; False for none.

        what: Whom it is for, in words.

    Raises:
        InsufficientMemoryError: It does not fit; its ``account`` says why, and what was
            tried.
    """
    ladder = ladder_of(fit)
    if not ladder:
        plan = largest_context(plan, room)
    return retrying(plan, attempt, room, ladder, what=what)


# -- models ----------------------------------------------------------------------------


def model_plan(
    params: ModelParams,
    pinned: frozenset[str],
    context: ContextParams | None = None,
) -> Plan:
    """
    The plan for a model that is to be loaded.

    Args:
        params: As the caller gave them.

        pinned: Names of the fields that may not change; see `given`.

        context: One to leave room for.
    """
    return Plan(
        model=params,
        context=ContextParams() if context is None else context,
        pinned=pinned | CONTEXT_FIELDS,
    )


def load(
    plan: Plan,
    attempt: Callable[[Plan], T],
    room: Room,
    fit: Sequence[Step] | bool = False,
    *,
    what: str = "the model",
    placing: Room | None = None,
) -> tuple[T, Fitted]:
    """
    Load a model of a plan: ``gpu_layers="auto"`` is as many layers as fit.

    Never none at all on a GPU that is there: that takes the ladder, or an explicit 0.

    Args:
        plan: Of `model_plan`.

        attempt: Loads it.

        room: What there is.

        fit: The ladder, True for the usual one; False for none.

        what: Whom it is for, in words.

        placing: What there is for the layers, if that is to count more, such as the
            context that is to follow; ``room`` if not given.

    Raises:
        InsufficientMemoryError: It does not fit; its ``account`` says why, and what was
            tried.
    """
    place = placing or room
    if plan.model.gpu_layers == "auto" and place.layers and place.short(plan):
        fewer = most_layers(plan, place, place.layers - 1)
        if fewer is not None:
            plan = fewer
            logger.warning(
                "%s: %s of %d layers fit on the GPU",
                *(what, plan.model.gpu_layers, place.layers),
            )
    return retrying(plan, attempt, room, ladder_of(fit), what=what)


# -- cache types -----------------------------------------------------------------------


def check_cache_types(params: ContextParams, shape: ModelShape) -> None:
    """
    Refuse element types of the cache that the model cannot have.

    Raises:
        ParameterError: A quantised type needs heads of a multiple of 32 values, as far
            as their size is known; or there is no cache of keys and values at all.
            Names the field.
    """
    layers = [layer for layer in shape.layers if layer.kv_heads]
    keeps = shape.cached and (layers or shape.from_info)
    for field, sizes in (
        ("kv_type_k", {layer.key_size for layer in layers}),
        ("kv_type_v", {layer.value_size for layer in layers}),
    ):
        kind = getattr(params, field)
        if kind == getattr(ContextParams(), field):
            continue
        name = shape.name or shape.architecture
        if not keeps:
            raise ParameterError(
                f"{field}={kind!r} but model {name!r} keeps no cache of keys and "
                f"values: leave {field} out"
            )
        block = BLOCKS[kind][0]
        odd = sorted(size for size in sizes if size % block)
        if odd and not shape.from_info:
            raise ParameterError(
                f"{field}={kind!r} needs heads of a multiple of {block} values but "
                f"those of model {name!r} have {odd[0]}: use 'f16'"
            )


def allowed(shape: ModelShape | None) -> Callable[[Plan], bool]:
    """For `Room.allows`: whether a model could have the cache of a plan."""

    def allows(plan: Plan) -> bool:
        if shape is None:
            return True
        try:
            check_cache_types(plan.context, shape)
        except ParameterError:
            return False
        return True

    return allows
