"""
The links between nodes: who depends on whom, who will dispose whom, what lives.

Every function here is a short section under `TREE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.states import Event, State, after, dispose_order
from llmcore.lifecycle.tracking import report

NODES: dict[int, Node] = {}
"""Every node that is not freed, by number, oldest first."""

Observer = Callable[[str, Node], object]
_observers: list[Observer] = []


def observe(observer: Observer) -> None:
    """
    Call ``observer(step, node)`` at ``"created"``, then at ``"disposing"`` and, after
    the teardown, at ``"disposed"`` or ``"failed"``.
    """
    _observers.append(observer)


def announce(step: str, node: Node) -> None:
    """Tell the observers; what one of them raises harms nobody."""
    for observer in _observers:
        try:
            observer(step, node)
        except Exception as error:
            report(error)


def attach(node: Node) -> None:
    """Make a node part of the tree; refused if its parent is not live."""
    with TREE:
        parent = node.parent
        if parent is not None:
            parent.dependants[node.number] = node
        NODES[node.number] = node
        if parent is not None and parent.state is not State.LIVE:
            detach(node)
            parent.refuse()


def detach(node: Node) -> object:
    """
    Take a node out of the tree, whatever is left of it there.

    Returns:
        What its owner kept alive, which must not die under the lock.
    """
    with TREE:
        NODES.pop(node.number, None)
        if node.parent is not None:
            node.parent.dependants.pop(node.number, None)
        return node.owner and node.owner.owned.pop(node.number, None)


def subtree(node: Node) -> list[Node]:
    """What goes when ``node`` goes, in the order in which to free it."""
    return dispose_order(
        node,
        lambda n: list(n.dependants.values()),
        lambda n: [resource._node for resource in n.owned.values()],
    )


def mark(root: Node, *, draining: bool) -> list[Node]:
    """
    Close the gates of a whole subtree at once.

    Returns:
        The nodes that still have to be freed, in order.
    """
    with TREE:
        nodes = subtree(root)
        for node in nodes:
            if node.state in (State.LIVE, State.BROKEN):
                node.cause = None if node is root else root  # no circle
                node.draining = draining
            elif not draining:
                node.draining = False
            node.state = after(node.state, Event.DISPOSE)
        TREE.notify_all()
        return [node for node in nodes if node.state is State.DISPOSING]


def mark_if_unused(root: Node, idle: float) -> list[Node] | None:
    """
    `mark`, but only if nothing in the subtree is held, running or in use.

    Args:
        root: The node to dispose.

        idle: Seconds since the end of the last hold, at least.
    """
    if TREE.mine:  # a `__del__` or a signal handler in a section of ours: not now
        return None
    with TREE:
        nodes = subtree(root)
        busy = any(n.holds or n.operations or n.users for n in nodes)
        if busy or time.monotonic() - max(n.idle_since for n in nodes) < idle:
            return None
        return mark(root, draining=False)


def break_all(root: Node, reason: str) -> None:
    """The engine under a subtree died: nothing in it can be used any more."""
    with TREE:
        # What is only owned by a dead one may run on another engine.
        for node in dispose_order(root, lambda n: n.dependants.values(), lambda n: ()):
            if node.state is State.LIVE:
                node.cause = reason
            node.state = after(node.state, Event.BREAK)
        TREE.notify_all()


def move(resource: Any, owner: Node | None) -> None:
    """
    Make ``owner`` the one that will dispose a resource; None means its parent.

    Raises:
        DisposedError: One of the two is disposed; nothing changed.

        ValueError: The resource is, or owns, the new owner.
    """
    node: Node = resource._node
    with TREE:
        node.check()
        target = node.parent if owner is None else owner
        if target is not None:
            target.check()
        if target is not None and _owns(node, target):
            raise ValueError(
                f"{target.label} cannot own {node.label}: it is owned by it"
            )
        if node.owner is not None:
            node.owner.owned.pop(node.number, None)
        node.block = False
        node.owner = target
        # What it depends on disposes it anyway, and must not keep it alive.
        if target is not None and not node.depends_on(target):
            target.owned[node.number] = resource


def _owns(node: Node, other: Node | None) -> bool:
    """Whether ``other`` is ``node``, or is disposed by it through ownership moves."""
    while other is not None:
        if other is node:
            return True
        # The owner by default is the parent, which owns nothing that it did not make.
        other = other.owner if other.owner is not other.parent else None
    return False


def hold(node: Node) -> None:
    """Count a shared hold."""
    with TREE:
        node.check()
        node.holds += 1


def unhold(node: Node) -> None:
    """End a shared hold; idle time counts from here."""
    with TREE:
        node.holds -= 1
        node.idle_since = time.monotonic()
