"""
The lease: the one door to a handle.

The order of its steps makes it right without a lock: a use first registers and then
looks at the state, a disposal first changes the state and then looks for users, so at
least one of the two sees the other.
"""

from __future__ import annotations

import sys
import threading
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from llmcore.errors import BusyError
from llmcore.lifecycle.monitor import MOMENT, TREE
from llmcore.lifecycle.states import State, admits

if TYPE_CHECKING:
    from llmcore.lifecycle.node import Node, Operation

CAN_PAUSE = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
LIVE = State.LIVE
_here = threading.local()


def uses_here() -> list[Use]:
    """
    The uses that this thread is inside of, innermost last.

    Ctrl-C can strike while a use ends, before it is over; such a use is found here,
    because the function that began it is no longer on the stack, and is ended.
    """
    try:
        uses: list[Use] = _here.uses
    except AttributeError:
        uses = _here.uses = []
    while uses and uses[-1].was_cut_off():
        uses[-1].leave()
    return uses


class Exclusion:
    """
    Lets one use in at a time; may be shared between nodes.

    Unlike a plain lock it knows which use is inside, from the same moment on that the
    use is inside: `dict.setdefault` is one step that nothing can interrupt. And it is
    fair: a thread that comes back at once lets those who wait go first.
    """

    __slots__ = ("_freed", "_holder", "_last", "_waiting")

    def __init__(self) -> None:
        self._holder: dict[int, Use] = {}
        self._freed = threading.Condition(threading.RLock())
        self._waiting = 0
        self._last = 0  # the thread that left while others waited

    @property
    def taken(self) -> bool:
        """Whether a use is inside."""
        return bool(self._holder)

    def enter(self, use: Use) -> bool:
        """Let a use in; False if another is inside, or it is another's turn."""
        if self._waiting and self._last == threading.get_ident():
            return False
        return self._holder.setdefault(0, use) is use

    def wait(self, use: Use) -> None:
        """Let a use in as soon as no other is inside and it is its turn."""
        me = threading.get_ident()
        with self._freed:
            self._waiting += 1
            try:
                while not self._enter_in_turn(use, me):
                    if not self._freed.wait(MOMENT):
                        self._last = 0  # whose turn it was is gone (Ctrl-C)
                self._last = 0
            finally:
                self._waiting -= 1

    def _enter_in_turn(self, use: Use, me: int) -> bool:
        if self._last == me and self._waiting > 1:
            return False
        return self._holder.setdefault(0, use) is use

    def leave(self, use: Use) -> None:
        """Let a use out, if it is the one inside."""
        if self._holder.get(0) is use:
            if not self._waiting:
                del self._holder[0]
                return
            self._last = threading.get_ident()
            del self._holder[0]
            with self._freed:
                self._freed.notify()


class Use:
    """
    One lease: proves liveness and exclusion together, and never outlives its block.

    Args:
        node: What is used.

        operation: The running work that this belongs to, if any.
    """

    __slots__ = ("_frame", "_node", "_operation", "thread")

    def __init__(self, node: Node, operation: Operation | None) -> None:
        self._node = node
        self._operation = operation
        self._frame: FrameType | None = None
        self.thread = 0

    def __enter__(self) -> Any:
        node = self._node
        self._frame = sys._getframe(1)
        inside = uses_here()
        try:
            if node.exclusion is not None:
                self._admit()  # do not wait for what will be refused
                if not node.exclusion.enter(self):
                    self._wait(node.exclusion, inside)
            self.register(inside)
            self._admit()
        except BaseException:  # also Ctrl-C, which can strike between any two lines
            self.leave()
            raise
        return node.handle

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
        if error is not None and self._node.translate is not None:
            self._node.translate(error)

    def register(self, inside: list[Use]) -> None:
        """Count as a user of the node; ``inside`` is `uses_here`."""
        self.thread = threading.get_ident()
        inside.append(self)  # first: a signal handler must see that we are inside
        self._node.users.append(self)

    def leave(self) -> None:
        """End the use, as far as it had begun; only its own thread does that."""
        node = self._node
        if self in node.users:
            node.users.remove(self)
        if node.exclusion is not None:
            node.exclusion.leave(self)
        if node.state is not LIVE:
            with TREE:
                TREE.notify_all()
        inside: list[Use] = _here.uses
        if inside and inside[-1] is self:  # last: so long `uses_here` can find it
            inside.pop()
        self._frame = None

    def was_cut_off(self) -> bool:
        """Whether the function that began the use, in this thread, is gone."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        if frame is not None or self._frame is None:
            return False
        # That of a generator leaves the stack between two values.
        return not self._frame.f_code.co_flags & CAN_PAUSE

    def _admit(self) -> None:
        node = self._node
        if node.state is not LIVE and not admits(
            node.state, draining=node.draining, running=self._operation is not None
        ):
            node.refuse()

    def _wait(self, exclusion: Exclusion, inside: list[Use]) -> None:
        """Wait for the exclusion; inside another exclusive use never do that."""
        if any(use._node.exclusion is not None for use in inside):
            raise BusyError(
                f"{self._node.label} is in use, and this thread is inside another call "
                "of the engine (a callback?) and must not wait: call it after that "
                "call returned"
            )
        exclusion.wait(self)
