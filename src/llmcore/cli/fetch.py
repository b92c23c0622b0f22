"""``llmcore fetch``: bring a model to this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmcore.sources import Progress


def fetch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Such as hf:owner/repository/model.gguf@revision."
        ),
    ],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Keep it here, not in the hub's shared cache.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Fetch again what is here.")] = False,
    offline: Annotated[
        bool, typer.Option(help="Only say where it is, if it is here.")
    ] = False,
) -> None:
    """Fetch a model, unless it is here, and print its path."""
    from llmcore.sources import resolve

    with _bar(source) as progress:
        found = resolve(
            source,
            progress=progress,
            cache_dir=cache_dir,
            force=force,
            offline=offline or None,
        )
    typer.echo(found.path)


@contextmanager
def _bar(source: str) -> Iterator[Progress]:
    """Shows bytes, speed and time left on a terminal, once something is fetched."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from llmcore.sources import Share

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.rpartition("/")[2], visible=False)

        def update(share: Share) -> None:
            bar.update(task, completed=share.done, total=share.total, visible=True)

        yield update
