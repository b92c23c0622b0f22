"""
Waking a task of an event loop from another thread: asyncio and trio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio


class Nap(Protocol):
    """One wait of one task."""

    def wake(self) -> None:
        """End it. Any thread, any moment; does nothing when the loop is gone."""

    def over(self) -> Awaitable[None]:
        """To be awaited once, by the task that made it."""


def nap() -> Nap:
    """A wait of the task that runs here."""
    try:
        return _AsyncioNap(asyncio.get_running_loop())
    except RuntimeError:
        return _TrioNap()


class _AsyncioNap:
    """A bare future: an event would cost as much again, for each token."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def over(self) -> Awaitable[None]:
        return self._future


class _TrioNap:
    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._event: trio.Event = trio.Event()

    def wake(self) -> None:
        import trio

        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return

    def over(self) -> Awaitable[None]:
        return self._event.wait()
