"""
The plain state of one resource, and the work that runs on it.

A `Node` knows nothing of the user's object, so it outlives that object and can be
freed after it.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, Self

from llmcore.errors import BrokenError, DisposedError, ForkError
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.states import State
from llmcore.lifecycle.use import Exclusion, Use, uses_here

_numbers = itertools.count(1)


class Node:
    """
    The plain state of one resource.

    Args:
        kind: Such as ``"model"``; with the number it makes the label.

        parent: What the resource depends on; never changes.

        handle: What `use` hands out.

        teardown: Called once with the handle, when nobody uses it any more.

        interrupt: Called without arguments when running work should end soon.

        exclusion: Lets one use in at a time; may be shared between nodes.

        translate: Called with an exception that leaves a use; may raise a better one.
    """

    __slots__ = (
        "_operations",
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
        exclusion: Exclusion | None = None,
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
        self.users: list[Use] = []
        # Weak: work that nobody can go on with any more does not count.
        self._operations: dict[int, weakref.ref[Operation]] = {}
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

    @property
    def operations(self) -> list[Operation]:
        """The work that runs on it."""
        found = [reference() for reference in list(self._operations.values())]
        return [operation for operation in found if operation is not None]

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
        beside = Use(self, None)
        inside = uses_here()
        try:
            with TREE:
                if self.tearing or self.state in (State.DISPOSED, State.FORKED):
                    return
                beside.register(inside)
            act()
        finally:
            beside.leave()

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
        if isinstance(self.cause, Node):
            because = f" because {self.cause.label} was disposed"
        raise DisposedError(f"{self.label} is disposed{because}: create a new one")


class Operation:
    """
    Work that takes many uses: a load, a stream, a chat turn. Lives until `end`, or
    until it is dropped.

    A disposal with ``inflight="cancel"`` cancels it, one with ``"wait"`` waits for it.

    Args:
        node: What it works on.

        cancel: Called, from any thread, when it should end soon.
    """

    __slots__ = ("__weakref__", "_cancel", "_node")

    def __init__(self, node: Node, cancel: Callable[[], object] | None = None) -> None:
        self._node = node
        self._cancel = cancel
        node._operations[id(self)] = weakref.ref(self)
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
        ended = node._operations.pop(id(self), None)
        if ended is not None and node.state is not State.LIVE:
            with TREE:
                TREE.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
