"""
What lives right now: `resources` as data, `format_tree` for people.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    infos = resources(root)
    numbers = {info.number for info in infos}
    children: dict[int | None, list[ResourceInfo]] = {}
    for info in infos:
        parent = info.parent if info.parent in numbers else None
        children.setdefault(parent, []).append(info)
    return "\n".join(_lines(children, None, 0))


def _lines(
    children: dict[int | None, list[ResourceInfo]], parent: int | None, depth: int
) -> Iterator[str]:
    for info in children.get(parent, []):
        file, line = info.created_at
        busy = f", {info.uses} inside" if info.uses else ""
        yield f"{'  ' * depth}{info.label} {info.state}{busy} ({file}:{line})"
        yield from _lines(children, info.number, depth + 1)


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
