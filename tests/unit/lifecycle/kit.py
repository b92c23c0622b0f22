"""
What the lifecycle tests share: gates, threads that may not hang, and a ledger.

The ledger plays the engine: it sees every use and every teardown, and writes down what
no engine would survive: a double free, a parent freed before its child, a free or an
overlap while somebody is inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import llmcore.lifecycle
from llmcore.lifecycle import Operation, Resource
from llmcore.lifecycle.monitor import TREE

PATIENCE = 20.0
"""Seconds after which a test that waits is wrong; a correct run never gets there."""

_KERNEL = str(Path(llmcore.lifecycle.__file__).parent)

T = TypeVar("T")


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return as soon as something is true that no event announces."""
    deadline = time.monotonic() + PATIENCE
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        never.wait(0.0005)


class Gate:
    """A point in the code that tells when a thread reaches it, and holds it there."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def cross(self, *_: object) -> None:
        """Called by the thread that is to be held."""
        self._reached.set()
        assert self._open.wait(PATIENCE), "the gate was never opened"

    def reached(self) -> None:
        """Wait until a thread is at the gate."""
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    @property
    def visited(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._open.set()


class Task(Generic[T]):
    """Work in a thread of its own, whose end the test can wait for."""

    def __init__(self, work: Callable[[], T], name: str | None) -> None:
        self._work = work
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def result(self) -> T:
        """What the work returned or raised; a thread that hangs is an error."""
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            frame = sys._current_frames().get(self.thread.ident or 0)
            stack = "".join(traceback.format_stack(frame))
            raise AssertionError(f"{self.thread.name} hangs:\n{stack}")
        if self._error is not None:
            raise self._error
        return self._value[0]


def run_in_thread(work: Callable[[], T], name: str | None = None) -> Task[T]:
    """Start ``work`` in a thread."""
    return Task(work, name)


class Handle:
    """What an engine would hand out: a name, and who is inside."""

    def __init__(self, name: str, parent: Handle | None) -> None:
        self.name = name
        self.parent = parent
        self.children: list[Handle] = []
        self.inside = 0
        self.frees = 0
        if parent is not None:
            parent.children.append(self)


class Ledger:
    """Creates resources and records what happens to their handles."""

    def __init__(self) -> None:
        self.freed: list[str] = []
        self.violations: list[str] = []
        self.handles: dict[str, Handle] = {}
        self.kept: list[Resource] = []
        self._of_node: dict[int, Handle] = {}
        self._lock = threading.Lock()

    def make(
        self,
        kind: str,
        parent: Resource | None = None,
        *,
        fail: BaseException | None = None,
        during_free: Callable[[], object] | None = None,
        keep: bool = True,
        **options: Any,
    ) -> Resource:
        """A resource whose handle is on the books; its teardown may raise or act."""
        above = None if parent is None else self._of_node.get(parent._node.number)
        handle = Handle(kind, above)

        def teardown(handle: Handle) -> None:
            self._free(handle)
            if during_free is not None:
                during_free()
            if fail is not None:
                raise fail

        self.handles[kind] = handle
        made = Resource(
            kind, parent=parent, handle=handle, teardown=teardown, **options
        )
        self._of_node[made._node.number] = handle
        if keep:  # alive, so that it is not forgotten
            self.kept.append(made)
        return made

    def _free(self, handle: Handle) -> None:
        with self._lock:
            handle.frees += 1
            self.freed.append(handle.name)
            if handle.frees > 1:
                self.violations.append(f"{handle.name} freed twice")
            if handle.inside:
                self.violations.append(f"{handle.name} freed while in use")
            alive = [child.name for child in handle.children if not child.frees]
            if alive:
                self.violations.append(f"{handle.name} freed before {alive}")

    @contextmanager
    def use(
        self, resource: Resource, operation: Operation | None = None
    ) -> Iterator[Handle]:
        """A use that the engine sees."""
        with resource._use(operation) as handle:
            self._enter(handle, alone=resource._node.exclusion is not None)
            try:
                yield handle
            finally:
                with self._lock:
                    handle.inside -= 1

    def _enter(self, handle: Handle, *, alone: bool) -> None:
        with self._lock:
            if handle.frees:
                self.violations.append(f"{handle.name} used after it was freed")
            if alone and handle.inside:
                self.violations.append(f"two are inside {handle.name}")
            handle.inside += 1


@contextmanager
def used_elsewhere(
    ledger: Ledger, resource: Resource, name: str = "user"
) -> Iterator[Gate]:
    """Another thread is inside a use until the gate, or the block's end, opens it."""
    gate = Gate()

    def work() -> None:
        with ledger.use(resource):
            gate.cross()

    task = run_in_thread(work, name)
    gate.reached()
    try:
        yield gate
    finally:
        gate.open()
        task.result()


def until_disposed(*resources: Resource) -> None:
    """Wait until all of them say that they are disposed."""
    with TREE:
        done = TREE.wait_for(lambda: all(r.disposed for r in resources), PATIENCE)
    assert done, "nobody disposed them"


def until_freed(*resources: Resource) -> None:
    """Wait until the memory of all of them is back."""
    with TREE:
        done = TREE.wait_for(lambda: not any(map(listed, resources)), PATIENCE)
    assert done, "they were never freed"


def listed(resource: Resource) -> bool:
    """Whether the resource is among those that are not freed."""
    number = resource._node.number
    return any(info.number == number for info in llmcore.lifecycle.resources())


def waiting() -> int:
    """How many threads wait for something to change in the tree."""
    return len(TREE._changed._waiters)  # type: ignore[attr-defined]


@contextmanager
def struck(
    at: int, strike: Callable[[], object], *, on: str = "line"
) -> Iterator[Callable[[], bool]]:
    """
    Call ``strike`` before the ``at``-th line that this thread runs in the kernel.

    That is what a signal handler or a collected object's ``__del__`` does. The value
    is a function that says whether it came to that.

    Args:
        at: Counts from zero.

        strike: May raise only on calls: Python looks for signals when it enters a
            function, and never between the end of a ``with`` block and its exit.

        on: ``"line"``, or ``"call"`` for each function that is entered.
    """
    left = at
    hit = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left, hit
        if not frame.f_code.co_filename.startswith(_KERNEL):
            return None
        if event == on and not hit:
            left -= 1
            if left < 0:
                hit = True
                strike()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: hit
    finally:
        sys.settrace(before)


def run_program(source: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of its own, with warnings as errors."""
    return subprocess.run(
        # Newer Pythons warn about every fork of a process that has threads.
        [sys.executable, "-W", "error", "-W", "ignore:This process", "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
