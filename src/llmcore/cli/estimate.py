"""``llmcore estimate``: the memory that a model and a context will need."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmcore.cli.options import ModelPath, header_of


def estimate(
    model: ModelPath,
    ctx: Annotated[
        int | None,
        typer.Option(
            min=8, help="Tokens of a sequence; as the model likes if not given."
        ),
    ] = None,
    kv: Annotated[
        str, typer.Option(help="Type of the keys in the cache, such as f16 or q8_0.")
    ] = "f16",
    kv_v: Annotated[
        str | None,
        typer.Option(help="Type of the values; that of the keys if not given."),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Conversations at once.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, help="Most tokens that are computed at once.")
    ] = 512,
    gpu_layers: Annotated[
        int,
        typer.Option(min=0, help="Layers on a GPU; one more than there are is all."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model and a context need, from the header of the file alone."""
    from llmcore.memory.estimate import estimate as estimated

    footprint = estimated(
        header_of(model),
        context_size="auto" if ctx is None else ctx,
        kv_type_k=kv,
        kv_type_v=kv if kv_v is None else kv_v,
        sequences=sequences,
        batch_size=max(batch, sequences),
        micro_batch_size=batch,
        gpu_layers=gpu_layers,
    )
    print(json.dumps(footprint.as_dict()) if as_json else footprint.explain())
