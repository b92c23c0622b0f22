"""``llmcore backends``: the engines that are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def backends(
    explain: Annotated[
        bool, typer.Option(help="Say why 'auto' takes each of them or not.")
    ] = False,
    gpu: Annotated[
        str, typer.Option(help="Explain for cuda, metal, vulkan, rocm, auto or none.")
    ] = "auto",
) -> None:
    """List the installed engines and what is wrong with any of them."""
    from rich.console import Console
    from rich.table import Table

    from llmcore.plugins import registry

    console = Console(markup=False)  # brackets are extras, as of `pip install`
    table = Table("name", "from", "state", "what it is")
    for name, found in registry().backends.items():
        state = "ready" if found.problem is None else found.problem.message
        table.add_row(name, found.distribution, state, found.info.summary)
    console.print(table)
    for problem in registry().problems:
        console.print(f"problem: {problem}", style="yellow", highlight=False)
    if explain or gpu != "auto":
        _explain(console, gpu)


def _explain(console: Console, gpu: str) -> None:
    from llmcore.plugins import BackendRequest, registry

    wanted: Any = False if gpu == "none" else gpu
    for verdict in registry().explain(BackendRequest(gpu=wanted)):
        mark = "chosen" if verdict.chosen else "not chosen"
        trial = f" ({verdict.trial})" if verdict.trial else ""
        line = f"{verdict.name}: {mark}: {verdict.reason}{trial}"
        console.print(line, highlight=False, soft_wrap=True)
