"""
How threads wake each other: without a lock that Python code could hold, so that a
signal handler, the collector or Ctrl-C can come at any moment.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

MOMENT = 0.1
"""Seconds after which a waiter looks again by itself; Windows needs it for Ctrl-C."""

T = TypeVar("T")


class Signal:
    """Wakes one waiting thread; setting it twice is like setting it once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiter, or the next one. Any thread, any moment."""
        try:
            self._lock.release()
        except RuntimeError:  # it is set already
            return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and unset it; False if the time is over."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)


class Mailbox(Generic[T]):
    """
    A line of events from the engine's thread to one reader.

    The engine never waits: it looks whether the box is `full` and leaves the stream
    alone until there is `room`.

    Args:
        size: With so many unread events it is full.

        room: Called by the reader when a box that was found full is not full any more.
    """

    __slots__ = (
        *("_events", "_found_full", "_room", "_size", "_untold"),
        *("closed", "left", "notify", "ready"),
    )

    def __init__(self, size: int, room: Callable[[], object]) -> None:
        self._events = deque[T]()
        self._size = size
        self._room = room
        self._found_full = False
        self._untold = False
        self.closed = False
        self.ready = Signal()
        self.left = Signal()
        self.notify: Callable[[], object] | None = None
        """Also called when something came: how a task, not a thread, is woken."""

    # -- the engine's side -------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the reader is behind; if so, it will call ``room``."""
        if len(self._events) < self._size:
            return False
        self._found_full = True  # first, then look again: the reader does it reversed
        return len(self._events) >= self._size

    def put(self, event: T) -> None:
        """Add an event, also if it is full; the reader is not woken before `tell`."""
        self._events.append(event)
        self._untold = True

    def tell(self) -> None:
        """
        Wake the reader if there is something new.

        To be called right before the engine leaves Python: a reader that wakes earlier
        only fights with the engine's thread for the interpreter.
        """
        if self._untold:
            self._untold = False
            self.wake()

    def close(self) -> None:
        """No more events will come: the engine has left the stream alone."""
        self.closed = True
        self.left.set()
        self.wake()

    def wait_closed(self, timeout: float) -> bool:
        """Wait until no more events will come; any thread but the engine's."""
        if self.left.wait(timeout):
            self.left.set()  # for the next one
        return self.closed

    def wake(self) -> None:
        """Have the reader look again. Any thread, any moment."""
        self.ready.set()
        notify = self.notify
        if notify is not None:
            notify()

    # -- the reader's side -------------------------------------------------------------

    def poll(self) -> T | None:
        """The next event, or None if there is none now."""
        try:
            event = self._events.popleft()
        except IndexError:
            return None
        if self._found_full and len(self._events) < self._size:
            self._found_full = False
            self._room()
        return event
