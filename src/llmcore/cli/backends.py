"""``llmcore backends``: the engines that are installed."""

from __future__ import annotations

from typing import Annotated

import typer


def backends(
    explain: Annotated[
        bool, typer.Option(help="Say why 'auto' takes each of them or not.")
    ] = False,
) -> None:
    """List the installed engines and what is wrong with any of them."""
    from rich.console import Console
    from rich.table import Table

    from llmcore.plugins import BackendRequest, registry

    console = Console()
    table = Table("name", "from", "state", "what it is")
    for name, found in registry().backends.items():
        state = "ready" if found.problem is None else found.problem.message
        table.add_row(name, found.distribution, state, found.info.summary)
    console.print(table)
    for problem in registry().problems:
        console.print(f"problem: {problem}", style="yellow", highlight=False)
    if explain:
        for verdict in registry().explain(BackendRequest()):
            mark = "chosen" if verdict.chosen else "not chosen"
            console.print(f"{verdict.name}: {mark}: {verdict.reason}", highlight=False)
