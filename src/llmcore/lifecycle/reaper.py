"""
What frees the resources that nobody disposed: forgotten ones, those that live when
the interpreter exits, and, in a forked child, none at all.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from typing import Any

from llmcore.errors import DisposeError
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.states import Event, State, after
from llmcore.lifecycle.teardown import dispose
from llmcore.lifecycle.tracking import report, warn_forgotten
from llmcore.lifecycle.tree import NODES
from llmcore.lifecycle.use import uses_here

EXIT_DEADLINE = 5.0
"""Seconds that the exit hook waits for running native work before it leaks it."""


class _Reaper:
    """A queue that a finalizer may write to, and a thread that empties it."""

    def __init__(self) -> None:
        # deque.append and SimpleQueue.put take no lock that Python code can hold, so
        # the collector may run them anywhere.
        self.forgotten: deque[tuple[Node, bool]] = deque()
        self.wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.busy: list[int] = []  # ids of the threads that free something
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        with TREE:
            if self.thread is not None:
                return
            self.thread = threading.Thread(
                target=self._run, name="llmcore-reaper", daemon=True
            )
        with contextlib.suppress(RuntimeError):  # exiting: the exit hook does the rest
            self.thread.start()

    def _run(self) -> None:
        while True:
            self.wake.get()
            try:
                self.reap()
            except BaseException as error:  # such as SystemExit: this thread must live
                report(error)

    def reap(self) -> None:
        """Free all that is in the queue."""
        while True:
            with TREE:
                if not self.forgotten:
                    return
                node, warn = self.forgotten.popleft()
                self.busy.append(threading.get_ident())
            try:
                dispose(node)
                if warn:
                    warn_forgotten(node.label, node.site)
            except DisposeError as error:
                report(error)
            finally:
                with TREE:
                    self.busy.remove(threading.get_ident())
                    TREE.notify_all()


_reaper = _Reaper()


def watch(resource: Any, node: Node) -> None:
    """Have the node freed when the resource is collected."""
    if _reaper.thread is None:
        _reaper.start()
        _install_exit_hook()
    node.finalizer = weakref.finalize(resource, _forgotten, node)
    node.finalizer.atexit = False  # the exit hook knows the right order


def _forgotten(node: Node) -> None:
    """Runs in the collector, on any thread, under any lock: only enqueue."""
    never_disposed = node.state in (State.LIVE, State.BROKEN)
    _reaper.forgotten.append((node, never_disposed))
    _reaper.wake.put(None)


def collect_forgotten() -> None:
    """Free what was forgotten so far, now. Does nothing inside a use."""
    if uses_here() or TREE.mine:
        return
    _reaper.reap()
    with TREE:
        while _reaper.busy and threading.get_ident() not in _reaper.busy:
            TREE.wait()


# -- interpreter exit ----------------------------------------------------------------

_hooked = False


def _install_exit_hook() -> None:
    """
    Register the hook once, as late as possible.

    Hooks run last in, first out; a backend that needs one of its own registers it when
    it is imported, which is before its first resource exists, so it runs after ours.
    """
    global _hooked
    if not _hooked:
        _hooked = True
        weakref.finalize(_reaper, int).detach()  # weakref's own hook goes in first
        atexit.register(_dispose_everything)


def _dispose_everything() -> None:
    """Free what lives; what is still in use at the deadline is leaked on purpose."""
    deadline = time.monotonic() + EXIT_DEADLINE
    with TREE:
        roots = [node for node in NODES.values() if node.parent is None]
    for node in reversed(roots):
        # No output and no exception: the program is over, nobody can act on it.
        with contextlib.suppress(BaseException):
            dispose(node, timeout=max(0.0, deadline - time.monotonic()))


# -- fork ----------------------------------------------------------------------------


def _before_fork() -> None:
    TREE.acquire()  # so that the child gets the tree in one piece, and unlocked


def _after_fork_in_parent() -> None:
    TREE.release()


def _after_fork_in_child() -> None:
    """Handles belong to the parent: here they are refused and never freed."""
    global _reaper
    for node in NODES.values():
        node.state = after(node.state, Event.FORK)
        if node.finalizer is not None:
            node.finalizer.detach()
    NODES.clear()
    _reaper = _Reaper()
    TREE.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
