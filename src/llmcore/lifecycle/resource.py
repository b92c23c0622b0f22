"""
`Resource`: the base of every object with a specified life; `Scope`: an owner of some.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.node import Node, Operation
from llmcore.lifecycle.reaper import watch
from llmcore.lifecycle.states import State
from llmcore.lifecycle.teardown import Inflight, dispose, dispose_marked, quietly
from llmcore.lifecycle.tracking import creation_site
from llmcore.lifecycle.tree import announce, attach, hold, mark_if_unused, move, unhold
from llmcore.lifecycle.use import Exclusion, Use


class Resource:
    """
    Lives until `dispose`, the end of its ``with`` block, the disposal of its parent or
    of its owner, its collection, or the end of the program: whichever comes first.

    Any thread may dispose it at any time. Afterwards everything else raises
    `DisposedError`, except `disposed`, `dispose`, leaving a ``with``, ``repr`` and
    facts that never change.

    Args:
        kind: What it is, for people.

        parent: The resource it depends on; kept alive, never changes.

        handle: The native object; if creation fails it is torn down here.

        teardown: Frees the handle, once. Must not refer to this object.

        name: For people.

        interrupt: Makes work inside the handle end soon; any thread.

        exclusion: Lets one use of the handle in at a time.

        translate: Turns what leaves a use into what the caller should see.
    """

    def __init__(
        self,
        kind: str,
        *,
        parent: Resource | None = None,
        handle: Any = None,
        teardown: Callable[[Any], object] | None = None,
        name: str = "",
        interrupt: Callable[[], object] | None = None,
        exclusion: Exclusion | None = None,
        translate: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._parent = parent
        self._node: Node = Node(
            kind,
            name=name,
            parent=None if parent is None else parent._node,
            handle=handle,
            teardown=teardown,
            interrupt=interrupt,
            exclusion=exclusion,
            translate=translate,
            site=creation_site(),
        )
        try:
            attach(self._node)
        except BaseException:
            if teardown is not None:
                quietly(partial(teardown, handle))
            raise
        watch(self, self._node)
        announce("created", self._node)

    # -- for subclasses --------------------------------------------------------------

    def _use(self, operation: Operation | None = None) -> Use:
        """The one door to the handle: ``with self._use() as handle``."""
        return self._node.use(operation)

    def _check(self) -> None:
        """Raise if this object cannot be used."""
        self._node.check()

    # -- public ----------------------------------------------------------------------

    @property
    def disposed(self) -> bool:
        """True from the first moment of a disposal, for all that goes with it."""
        return self._node.state in (State.DISPOSING, State.DISPOSED)

    def dispose(
        self, *, inflight: Inflight = "cancel", timeout: float | None = None
    ) -> None:
        """
        Free this object and all that depends on it; does nothing the second time.

        Returns when the memory is given back. From inside a callback of the engine it
        returns at once, and the memory comes back when that call ends.

        Args:
            inflight: ``"cancel"`` stops running work at the next step of the engine;
                its consumer gets one `DisposedError`. ``"wait"`` lets it finish.

            timeout: Seconds to wait for work that is inside the engine; None waits.

        Raises:
            DisposeError: Everything is freed, but some teardowns raised.

            DisposeTimeoutError: Freed later, in the background.
        """
        dispose(self._node, inflight=inflight, timeout=timeout)

    async def adispose(
        self, *, inflight: Inflight = "cancel", timeout: float | None = None
    ) -> None:
        """`dispose` without blocking the event loop (asyncio or trio)."""
        import anyio
        from anyio import to_thread

        # A limiter of its own: a full pool of busy workers must not delay a disposal.
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(
                lambda: self.dispose(inflight=inflight, timeout=timeout),
                limiter=anyio.CapacityLimiter(1),
            )

    def dispose_if_unused(self, *, idle: float = 0.0) -> bool:
        """
        Dispose, unless something in it is held, running or in use.

        Args:
            idle: Only if the last hold ended at least so many seconds ago.

        Returns:
            Whether it was disposed.
        """
        nodes = mark_if_unused(self._node, idle)
        if nodes is None:
            return False
        dispose_marked(self._node, nodes)
        return True

    def lease(self) -> Lease:
        """
        A shared hold: while it lasts, `dispose_if_unused` (and so a manager or a timer)
        leaves this object alone. `dispose` by the owner still wins.
        """
        return Lease(self)

    def move_to(self, owner: Resource | None) -> Self:
        """
        Let ``owner`` dispose this object from now on; None gives it to its parent.

        What it depends on never changes: disposing that still disposes this.

        Raises:
            DisposedError: One of the two is disposed; nothing changed.

            ValueError: ``owner`` is this object or owned by it.
        """
        move(self, None if owner is None else owner._node)
        return self

    def __enter__(self) -> Self:
        self._node.check()
        self._node.block = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._node.block:  # False if it was moved to another owner meanwhile
            self.dispose()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._node.block:
            await self.adispose()

    def __repr__(self) -> str:
        node = self._node
        return f"<llmcore.{type(self).__name__} {node.label} {node.state.name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{self._node.label} cannot be copied or pickled: "
            "it stands for native memory; create another one"
        )


class Lease:
    """A shared hold on a resource, for a ``with`` block; ends once."""

    def __init__(self, resource: Resource) -> None:
        hold(resource._node)
        self._resource: Resource | None = resource

    def release(self) -> None:
        """End the hold; doing it twice is fine."""
        with TREE:
            resource, self._resource = self._resource, None
        if resource is not None:
            unhold(resource._node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


R = TypeVar("R", bound=Resource)


class Scope(Resource):
    """Owns several resources and disposes them together, the newest first."""

    def __init__(self) -> None:
        super().__init__("scope")

    def own(self, resource: R) -> R:
        """Take over the ownership of a resource and return it."""
        resource.move_to(self)
        return resource

    def release(self, resource: R) -> R:
        """
        Give a resource back to its parent and return it.

        Raises:
            ValueError: This scope does not own it.
        """
        if resource._node.owner is not self._node:
            raise ValueError(
                f"{resource._node.label} is not owned by {self._node.label}"
            )
        resource.move_to(None)
        return resource
