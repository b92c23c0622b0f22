"""
The plain state of one resource, and the one door to its handle.

A `Node` knows nothing of the user's object, so it outlives that object and can be
freed after it. `Node.use` is the only way to a handle: it proves that the resource is
live and, where the resource is exclusive, that nobody else is inside.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from llmcore.errors import BrokenError, BusyError, DisposedError, ForkError
from llmcore.lifecycle.states import State, admits

_numbers = itertools.count(1)
_inside = threading.local()  # .nodes: the nodes this thread is using, innermost last


class Monitor(threading.Condition):
    """The lock of the tree, and the signal that something in it changed."""

    def __init__(self) -> None:
        super().__init__(threading.RLock())

    @property
    def mine(self) -> bool:
        """
        Whether this thread is inside a section of the kernel right now.

        Only a signal handler or a collected object's ``__del__`` can see True.
        """
        return bool(self._is_owned())  # type: ignore[attr-defined]


TREE = Monitor()
"""
Guards all links and states. Re-entrant, because the collector and signal handlers run
anywhere; no native call and no user code ever runs under it.
"""


def nodes_in_use() -> list[Node]:
    """The nodes that this thread is using, innermost last."""
    try:
        nodes: list[Node] = _inside.nodes
    except AttributeError:
        nodes = _inside.nodes = []
    return nodes


class Node:
    """
    The plain state of one resource.

    Args:
        kind: Such as ``"model"``; with the number it makes the label.

        parent: What the resource depends on; never changes.

        handle: What `use` hands out.

        teardown: Called once with the handle, when nobody uses it any more.

        interrupt: Called without arguments when running work should end soon.

        exclusion: A lock to hold during every use; may be shared between nodes.

        translate: Called with an exception that leaves a use; may raise a better one.
    """

    __slots__ = (
        "block",
        "cause",
        "dependants",
        "draining",
        "exclusion",
        "finalizer",
        "handed_over",
        "handle",
        "holds",
        "idle_since",
        "interrupt",
        "kind",
        "name",
        "number",
        "operations",
        "owned",
        "owner",
        "parent",
        "site",
        "state",
        "teardown",
        "tearing",
        "translate",
        "users",
    )

    def __init__(
        self,
        kind: str,
        *,
        name: str = "",
        parent: Node | None = None,
        handle: Any = None,
        teardown: Callable[[Any], object] | None = None,
        interrupt: Callable[[], object] | None = None,
        exclusion: threading.Lock | None = None,
        translate: Callable[[BaseException], object] | None = None,
        site: tuple[str, int] = ("<unknown>", 0),
    ) -> None:
        self.kind = kind
        self.name = name
        self.number = next(_numbers)
        self.parent = parent
        self.handle = handle
        self.teardown = teardown
        self.interrupt = interrupt
        self.exclusion = exclusion
        self.translate = translate
        self.site = site
        self.state = State.LIVE
        self.cause: Node | str | None = None  # who disposed it, or how the engine died
        self.owner: Node | None = parent
        self.block = False  # a `with` block is the owner
        self.dependants: dict[int, Node] = {}
        self.owned: dict[int, Any] = {}  # number -> Resource, kept alive by its owner
        self.users: list[int] = []  # a thread id for each use
        self.operations: dict[int, Operation] = {}
        self.draining = False
        self.tearing = 0  # id of the thread that frees it
        self.handed_over = False  # a thread waits to free what is below
        self.holds = 0
        self.idle_since = time.monotonic()
        self.finalizer: Any = None

    @property
    def label(self) -> str:
        """Such as ``model#2 'SmolLM2'``."""
        name = f" {self.name!r}" if self.name else ""
        return f"{self.kind}#{self.number}{name}"

    def depends_on(self, other: Node) -> bool:
        """Whether it is ``other``, or goes when ``other`` goes, whoever owns it."""
        node: Node | None = self
        while node is not None and node is not other:
            node = node.parent
        return node is other

    def use(self, operation: Operation | None = None) -> Use:
        """
        The lease around a native call: ``with node.use() as handle``.

        Args:
            operation: The running work that this belongs to, if any.
        """
        return Use(self, operation)

    def poke(self, act: Callable[[], object]) -> None:
        """
        Do something short beside the running uses, such as interrupting them.

        Does nothing if the handle is being freed, and keeps it from being freed.
        """
        me, inside = threading.get_ident(), nodes_in_use()
        depth = len(inside)
        try:
            with TREE:
                if self.tearing or self.state in (State.DISPOSED, State.FORKED):
                    return
                self.users.append(me)
                inside.append(self)
            act()
        finally:
            with TREE:
                if len(inside) > depth:
                    del inside[depth:]
                    self.users.remove(me)
                TREE.notify_all()

    def check(self) -> None:
        """Raise what `use` would raise, without using anything."""
        if self.state is not State.LIVE:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise the error that says why this node cannot be used."""
        if self.state is State.FORKED:
            raise ForkError(
                f"{self.label} was created before os.fork() and cannot be used in the "
                "child: create a new one there"
            )
        if self.state is State.BROKEN:
            raise BrokenError(
                f"{self.label} is broken because the engine died ({self.cause}): "
                "dispose it and create a new one"
            )
        because = ""
        if isinstance(self.cause, Node) and self.cause is not self:
            because = f" because {self.cause.label} was disposed"
        raise DisposedError(f"{self.label} is disposed{because}: create a new one")


class Use:
    """
    One lease: proves liveness and exclusion together, and never outlives its block.

    The order makes it right without a lock: a use first registers and then looks at
    the state, a disposal first changes the state and then looks for users, so at least
    one of the two sees the other.
    """

    __slots__ = ("_node", "_operation")

    def __init__(self, node: Node, operation: Operation | None) -> None:
        self._node = node
        self._operation = operation

    def __enter__(self) -> Any:
        node = self._node
        me = threading.get_ident()
        inside = nodes_in_use()
        if node.exclusion is not None:
            self._admit()  # do not wait for what will be refused
            _acquire(node, inside)
        depth = len(inside)
        try:
            inside.append(node)  # first: a signal handler must see that we are inside
            node.users.append(me)
            self._admit()
        except BaseException:  # also Ctrl-C, which can strike between any two lines
            _leave(node, me)
            del inside[depth:]
            raise
        return node.handle

    def _admit(self) -> None:
        node, running = self._node, self._operation is not None
        if node.state is not State.LIVE and not admits(
            node.state, draining=node.draining, running=running
        ):
            node.refuse()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        node = self._node
        _leave(node, threading.get_ident())
        nodes_in_use().pop()
        if error is not None and node.translate is not None:
            node.translate(error)


def _acquire(node: Node, inside: list[Node]) -> None:
    """Take the exclusion lock; inside another use never wait for it."""
    assert node.exclusion is not None
    nested = bool(inside) and any(node.exclusion is not None for node in inside)
    if not node.exclusion.acquire(blocking=not nested):
        raise BusyError(
            f"{node.label} is in use, and this thread is inside another call of the "
            "engine (a callback?) and must not wait: call it after that call returned"
        )


def _leave(node: Node, me: int) -> None:
    node.users.remove(me)
    if node.exclusion is not None:
        node.exclusion.release()
    if node.state is not State.LIVE:
        with TREE:
            TREE.notify_all()


class Operation:
    """
    Work that takes many uses: a load, a stream, a chat turn. Ends exactly once.

    A disposal with ``inflight="cancel"`` cancels it, one with ``"wait"`` waits for it.

    Args:
        node: What it works on.

        cancel: Called, from any thread, when it should end soon.
    """

    __slots__ = ("_cancel", "_node")

    def __init__(self, node: Node, cancel: Callable[[], object] | None = None) -> None:
        self._node = node
        self._cancel = cancel
        node.operations[id(self)] = self
        if node.state is not State.LIVE:
            self.end()
            node.refuse()

    def cancel(self) -> None:
        """Ask the work to end; it is asked once."""
        with TREE:
            cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def end(self) -> None:
        """The work is over; doing it twice is fine."""
        node = self._node
        ended = node.operations.pop(id(self), None)
        if ended is not None and node.state is not State.LIVE:
            with TREE:
                TREE.notify_all()

    def __enter__(self) -> Operation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
