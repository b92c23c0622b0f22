"""``llmcore ps``: what lives in the processes that opted in."""

from __future__ import annotations

import shlex
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.tree import Tree

    from llmcore.introspection import ProcessInfo, PublishedResource

NOBODY = (
    "no process shows its resources; start one with LLMCORE_PS=1 in its environment, "
    "or call llmcore.introspection.publish() in it"
)


_NO_WRAP = 10_000


def ps(
    pid: Annotated[
        int | None, typer.Argument(help="Only this process; all if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write it as JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two looks of --watch.")
    ] = 1.0,
) -> None:
    """Show the live models, contexts, sequences of the processes that opted in."""
    from rich.console import Console

    if watch and json:
        raise typer.BadParameter("choose one of --watch and --json")
    try:
        if watch:
            _watch(pid, every)
        found = _find(pid)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if json:
        import msgspec

        print(msgspec.json.encode(found).decode())
    else:
        console = Console()
        if not console.is_terminal:
            console.width = _NO_WRAP
        console.print(_shown(found))


def _find(pid: int | None) -> list[ProcessInfo]:
    from llmcore.introspection import processes

    found = processes(pid)
    if pid is not None and not found:
        raise OSError(f"process {pid} is not there or does not show its resources")
    return found


def _watch(pid: int | None, every: float) -> None:
    from rich.live import Live

    never = threading.Event()
    with Live(_shown(_find(pid)), auto_refresh=False) as live:
        while not never.wait(every):
            live.update(_shown(_find(pid)), refresh=True)


def _shown(found: list[ProcessInfo]) -> RenderableType:
    from rich.console import Group

    return Group(*map(_tree, found)) if found else NOBODY


def _tree(process: ProcessInfo) -> Tree:
    """One process with all that lives in it."""
    from rich.text import Text
    from rich.tree import Tree

    from llmcore.lifecycle.live import in_tree
    from llmcore.memory import size_text

    parts = [str(process.pid), process.problem or shlex.join(process.command)]
    if process.rss is not None:
        parts.insert(1, f"{size_text(process.rss)} RAM")
    top = Tree(Text("  ".join(parts)))
    levels = [top]
    for resource, depth in in_tree(process.resources):
        del levels[depth + 1 :]
        levels.append(levels[depth].add(Text(_line(resource))))
    return top


def _line(resource: PublishedResource) -> str:
    from llmcore.memory import size_text

    file, line = resource.created_at
    counts = {
        "inside": resource.uses,
        "running": resource.operations,
        "held": resource.holds,
    }
    parts = [f"{resource.label} {resource.state}"]
    parts += [f"{count} {what}" for what, count in counts.items() if count]
    parts += [] if resource.size is None else [size_text(resource.size)]
    parts += [] if resource.age is None else [_age(resource.age)]
    return ", ".join(parts) + f" ({file}:{line})"


def _age(seconds: float) -> str:
    """
    A duration for people.

    >>> _age(4), _age(75), _age(7300)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
