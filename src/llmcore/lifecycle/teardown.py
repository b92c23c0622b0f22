"""
Disposing: close the gates, cancel, drain, free children first, aggregate the errors.

Decide, then act: the gates of the whole subtree close in one section under the lock;
waiting and freeing happen outside of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from llmcore.errors import DisposeError, DisposeTimeoutError
from llmcore.lifecycle.node import TREE, Node, nodes_in_use
from llmcore.lifecycle.states import Event, State, after
from llmcore.lifecycle.tracking import report
from llmcore.lifecycle.tree import announce, detach, mark

Inflight = Literal["cancel", "wait"]


def dispose(
    root: Node, *, inflight: Inflight = "cancel", timeout: float | None = None
) -> None:
    """
    Dispose a node and all that goes with it; returns when it is freed.

    A thread that is inside a use, of anything, cannot wait for uses to end: there the
    gates close, the running work is cancelled, and a thread of its own frees the rest.

    Raises:
        DisposeError: Everything is freed, but some teardowns raised.

        DisposeTimeoutError: Something is still inside; it is freed later.
    """
    if inflight not in ("cancel", "wait"):
        raise ValueError(f"inflight must be 'cancel' or 'wait', got {inflight!r}")
    if TREE.mine:  # a `__del__` or a signal handler in the middle of a section of ours
        _in_background(lambda: dispose(root, inflight=inflight))
        return
    nodes = mark(root, draining=inflight == "wait")
    dispose_marked(root, nodes, timeout=timeout)


def dispose_marked(
    root: Node, nodes: list[Node], *, timeout: float | None = None
) -> None:
    """The second half of `dispose`, for nodes that are marked already."""
    interrupt(nodes)
    if not nodes:
        return
    me = threading.get_ident()  # a teardown that disposes must not wait for itself
    if nodes_in_use() or any(node.tearing == me for node in nodes):
        _in_background(lambda: _finish(root, nodes, None))
        return
    _finish(root, nodes, None if timeout is None else time.monotonic() + timeout)


def interrupt(nodes: list[Node]) -> None:
    """Cancel the work that runs on nodes which do not wait for it."""
    for node in nodes:
        if not node.draining:
            for operation in list(node.operations.values()):
                quietly(operation.cancel)
            quietly(node.interrupt)


def quietly(ask: Callable[[], object] | None) -> None:
    """Do what must not stop us; what it raises is shown."""
    try:
        if ask is not None:
            ask()
    except Exception as error:
        report(error)


def _finish(root: Node, nodes: list[Node], deadline: float | None) -> None:
    """Drain and free nodes in order; on a timeout or Ctrl-C hand over the rest."""
    errors: list[Exception] = []
    left = list(nodes)
    try:
        _drain_operations(nodes, deadline)
        while left:
            if _claim(left[0], deadline):
                errors.extend(_free(left[0]))
            left.pop(0)
    except BaseException:
        if left:
            _in_background(lambda: _finish(root, left, None))
        raise
    if errors:
        raise DisposeError(f"disposing {root.label}: teardown failed", errors)


def _drain_operations(nodes: list[Node], deadline: float | None) -> None:
    """Wait for running work where it was asked for, then close those gates too."""
    drained = [node for node in nodes if node.draining]
    with TREE:
        for node in drained:
            _wait(partial(_is_drained, node), node, deadline)
        for node in drained:
            node.draining = False
    if drained:
        interrupt(drained)


def _is_drained(node: Node) -> bool:
    return not (node.draining and node.operations)


def _claim(node: Node, deadline: float | None) -> bool:
    """Wait until nobody uses the node; True if this thread is the one to free it."""
    with TREE:
        if not node.tearing:
            _wait(lambda: bool(node.tearing) or not node.users, node, deadline)
        if not node.tearing:
            node.tearing = threading.get_ident()
            return True
        _wait(lambda: node.state is not State.DISPOSING, node, deadline)
        return False


def _wait(ready: Callable[[], bool], node: Node, deadline: float | None) -> None:
    while not ready():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            threads = ", ".join(sorted(_names(node.users))) or "running work"
            raise DisposeTimeoutError(
                f"{node.label} is still in use by {threads}: it is disposed and will "
                "be freed when that ends; dispose it again to wait longer"
            )
        TREE.wait(left)


def _names(idents: list[int]) -> set[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {f"thread {names.get(ident, ident)!r}" for ident in idents}


def _free(node: Node) -> list[Exception]:
    """Tear one node down; it counts as freed whatever the teardown raises."""
    errors: list[Exception] = []
    try:
        if node.teardown is not None:
            node.teardown(node.handle)
    except Exception as error:
        errors.append(error)
    finally:
        _parts = node.handle, node.teardown, node.interrupt, node.owned
        with TREE:  # where the parts must not die: that may run code of others
            _kept = detach(node)
            node.state = after(node.state, Event.FREED)
            node.handle = node.teardown = node.interrupt = None
            node.owned = {}
            TREE.notify_all()
        if node.finalizer is not None:
            node.finalizer.detach()
        announce("failed" if errors else "disposed", node)
    return errors


def _in_background(work: Callable[[], object]) -> None:
    """Run a disposal that this thread must not wait for."""

    def run() -> None:
        try:
            work()
        except Exception as error:
            report(error)

    try:
        threading.Thread(target=run, name="llmcore-dispose", daemon=True).start()
    except RuntimeError:  # the interpreter is exiting: the exit hook does the rest
        return
