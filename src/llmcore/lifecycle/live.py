"""
What lives right now: `resources` as data, `format_tree` for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from attrs import frozen

from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.tree import NODES


@frozen(kw_only=True)
class ResourceInfo:
    """One live resource, as it was when asked."""

    number: int
    kind: str
    label: str
    state: str
    parent: int | None
    owner: int | None
    uses: int
    operations: int
    holds: int
    created_at: tuple[str, int]


R = TypeVar("R", bound=ResourceInfo)


def resources(root: Node | None = None) -> list[ResourceInfo]:
    """
    The resources that are not freed, oldest first.

    Args:
        root: Only this one and what depends on it.
    """
    with TREE:
        nodes = list(NODES.values())
        return [_info(n) for n in nodes if root is None or n.depends_on(root)]


def format_tree(root: Node | None = None) -> str:
    """The live tree, one line a resource, children indented."""
    return "\n".join(_line(info, depth) for info, depth in in_tree(resources(root)))


def in_tree(infos: Iterable[R]) -> Iterator[tuple[R, int]]:
    """Resources as a tree is printed: each with its depth, parents first."""
    children: dict[int | None, list[R]] = {}
    infos = list(infos)
    numbers = {info.number for info in infos}
    for info in infos:
        parent = info.parent if info.parent in numbers else None
        children.setdefault(parent, []).append(info)
    waiting = [(info, 0) for info in reversed(children.get(None, []))]
    while waiting:
        info, depth = waiting.pop()
        yield info, depth
        below = reversed(children.get(info.number, []))
        waiting.extend((child, depth + 1) for child in below)


def _line(info: ResourceInfo, depth: int) -> str:
    file, line = info.created_at
    busy = f", {info.uses} inside" if info.uses else ""
    return f"{'  ' * depth}{info.label} {info.state}{busy} ({file}:{line})"


def _info(node: Node) -> ResourceInfo:
    return ResourceInfo(
        number=node.number,
        kind=node.kind,
        label=node.label,
        state=node.state.value,
        parent=None if node.parent is None else node.parent.number,
        owner=None if node.owner is None else node.owner.number,
        uses=len(node.users),
        operations=len(node.operations),
        holds=node.holds,
        created_at=node.site,
    )
