"""A model on a machine with one GPU, whose sizes are easy to follow."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from llmcore.errors import InsufficientMemoryError
from llmcore.memory import Budget, Footprint, Term
from llmcore.memory.cache import BLOCKS
from llmcore.memory.fitting import retrying
from llmcore.memory.ladder import LADDER, Plan, Room, Step
from llmcore.params import ContextParams

LAYERS = 8
WEIGHTS, HEADS = 1_000_000, 64
WANTED = Plan(context=ContextParams(context_size=8192, sequences=2))
FIELDS = (
    *("batch_size", "micro_batch_size", "kv_type_k", "kv_type_v"),
    *("context_size", "gpu_layers", "offload_kv"),
)


def needs(plan: Plan) -> Footprint:
    """A machine with one GPU, and a model whose sizes are easy to follow."""
    layers, context = plan.model.gpu_layers, plan.context
    on_gpu = LAYERS if layers == "auto" else min(layers, LAYERS)
    where = {"gpu": on_gpu, "cpu": LAYERS - on_gpu}
    token = sum(
        HEADS * BLOCKS[kind][1] // BLOCKS[kind][0]
        for kind in (context.kv_type_k, context.kv_type_v)
    )
    cache = int(context.context_size) * context.sequences * token
    terms = [
        Term(device=device, purpose="weights", size=WEIGHTS * count)
        for device, count in where.items()
    ]
    if not context.offload_kv:
        where = {"cpu": LAYERS}
    terms += [
        Term(device=device, purpose="cache", size=cache * count)
        for device, count in where.items()
    ]
    device = "gpu" if on_gpu else "cpu"
    size = 2000 * context.micro_batch_size + 100 * context.batch_size
    return Footprint((*terms, Term(device=device, purpose="compute", size=size)))


def room(limit: int | dict[str, int | None], **others: object) -> Room:
    """What a budget leaves."""
    budget = Budget(limit, headroom=0.0)
    return Room(
        estimate=needs,
        shortage=lambda footprint: budget.shortage(footprint, "the model"),
        layers=LAYERS,
        **others,  # type: ignore[arg-type]
    )


def path_down(
    plan: Plan, place: Room, ladder: Iterable[Step] = LADDER
) -> tuple[list[Plan], InsufficientMemoryError]:
    """Every plan down to the end of the ladder, for an engine that takes none."""
    plans: list[Plan] = []

    def refuse(made: Plan) -> None:
        plans.append(made)
        raise InsufficientMemoryError("the engine has not enough")

    with pytest.raises(InsufficientMemoryError) as caught:
        retrying(plan, refuse, place, ladder)
    return plans, caught.value
