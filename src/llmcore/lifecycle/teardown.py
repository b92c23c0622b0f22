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
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.states import Event, State, after
from llmcore.lifecycle.tracking import report
from llmcore.lifecycle.tree import announce, detach, mark
from llmcore.lifecycle.use import uses_here

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
    if not nodes:
        return
    disposal = _Disposal(root, nodes)
    try:
        interrupt(nodes)
    except BaseException:
        disposal.hand_over()
        raise
    me = threading.get_ident()  # a teardown that disposes must not wait for itself
    if uses_here() or any(node.tearing == me for node in nodes):
        disposal.hand_over()
        return
    disposal.run(None if timeout is None else time.monotonic() + timeout)


def interrupt(nodes: list[Node]) -> None:
    """Cancel the work that runs on nodes which do not wait for it."""
    for node in nodes:
        if not node.draining:
            for operation in node.operations:
                quietly(operation.cancel)
            if node.interrupt is not None:
                quietly(partial(node.poke, node.interrupt))


def quietly(act: Callable[[], object]) -> None:
    """Do what must not stop us; what it raises is shown."""
    try:
        act()
    except Exception as error:
        report(error)


class _Disposal:
    """The draining and freeing of marked nodes; goes on elsewhere if cut short."""

    def __init__(self, root: Node, nodes: list[Node]) -> None:
        self._root = root
        self._left = list(nodes)
        self._errors: list[Exception] = []
        self._claimed: Node | None = None

    def run(self, deadline: float | None = None) -> None:
        """Free the nodes in order; on a timeout or Ctrl-C a thread frees the rest."""
        try:
            _drain_operations(self._left, deadline)
            while self._left:
                node = self._left[0]
                if self._claim(node, deadline):
                    self._errors.extend(_free(node))
                self._left.pop(0)
        except BaseException:
            self.hand_over()
            raise
        if self._errors:
            raise DisposeError(
                f"disposing {self._root.label}: teardown failed", self._errors
            )

    def _claim(self, node: Node, deadline: float | None) -> bool:
        """Wait until nobody uses the node; True if it is ours to free."""
        with TREE:
            if node.tearing and self._claimed is node:
                return True  # we were cut short after this point
            if not node.tearing:
                _wait(lambda: bool(node.tearing) or not node.users, node, deadline)
            if not node.tearing:
                self._claimed = node
                node.tearing = threading.get_ident()
                return True
            _wait(lambda: node.state is not State.DISPOSING, node, deadline)
            return False

    def hand_over(self) -> None:
        """Let a thread of its own free the rest; one a root is enough to wait."""
        with TREE:
            if not self._left or (self._root.handed_over and self._claimed is None):
                return
            self._root.handed_over = True
        _in_background(self._run_to_the_end)

    def _run_to_the_end(self) -> None:
        try:
            self.run()
        finally:
            self._root.handed_over = False


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


def _wait(ready: Callable[[], bool], node: Node, deadline: float | None) -> None:
    while not ready():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            idents = [use.thread for use in node.users]
            threads = ", ".join(sorted(_names(idents))) or "running work"
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
    announce("disposing", node)
    # Taken before it is called: Ctrl-C between the two leaks, and never frees twice.
    teardown, node.teardown = node.teardown, None
    try:
        if teardown is not None:
            teardown(node.handle)
    except Exception as error:
        errors.append(error)
    finally:
        _parts = node.handle, teardown, node.interrupt, node.translate, node.owned
        with TREE:  # where the parts must not die: that may run code of others
            _kept = detach(node)
            node.state = after(node.state, Event.FREED)
            node.handle = node.interrupt = node.translate = None
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
