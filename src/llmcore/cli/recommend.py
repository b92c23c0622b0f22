"""``llmcore recommend``: which contexts of a model fit the memory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from llmcore.cli.options import ModelPath, header_of

if TYPE_CHECKING:
    from llmcore.memory.recommend import Recommendation

UNITS = {
    "": 1,
    "B": 1,
    **{f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}iB": 1024**power for power, unit in enumerate("KMGT", 1)},
}


def recommend(
    model: ModelPath,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Memory for all of it, such as 4GiB; what is free if not given."
        ),
    ] = None,
    context_size: Annotated[
        list[int] | None,
        typer.Option("--ctx", min=8, help="A length; can be given several times."),
    ] = None,
    sequences: Annotated[
        list[int] | None,
        typer.Option(min=1, help="How many at once; can be given several times."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """Say which contexts fit, what they cost, and which is best; best first."""
    from llmcore.memory.recommend import recommend as recommended

    found = recommended(
        header_of(model),
        "auto" if budget is None else size_of(budget),
        context_sizes=context_size,
        sequences=sequences or (1,),
    )
    for one in found:
        print(json.dumps(one.as_dict()) if as_json else _line(one))
    if not found:
        typer.echo("nothing fits: raise the budget or take a smaller model", err=True)
        raise typer.Exit(1)


def _line(one: Recommendation) -> str:
    from llmcore.memory import size_text

    context, needs = one.context, size_text(one.footprint.total)
    mark = "" if one.advised else " (tight)"
    return (
        f"--ctx {context.context_size} --sequences {context.sequences} "
        f"--kv {context.kv_type_k}: {needs}{mark}, {one.why}"
    )


def size_of(text: str) -> int:
    """
    Bytes of a text such as ``"4GiB"``, ``"4 GB"`` or ``"4096"``.

    Raises:
        ValueError: It is none; tells the units.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2] not in UNITS:
        units = ", ".join(unit for unit in UNITS if unit)
        raise ValueError(f"{text!r} is no size: give a number and one of {units}")
    return int(float(found[1]) * UNITS[found[2]])
