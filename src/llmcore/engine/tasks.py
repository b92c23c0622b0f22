"""
Waking a task of an event loop from another thread: asyncio and trio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import anyio


def waker(event: anyio.Event) -> Callable[[], None]:
    """
    What sets an event of the running loop. The result may be called from any thread and
    at any time, and does nothing when the loop is gone.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _trio_waker(event)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    return wake


def _trio_waker(event: anyio.Event) -> Callable[[], None]:
    import trio

    token = trio.lowlevel.current_trio_token()

    def wake() -> None:
        try:
            token.run_sync_soon(event.set)
        except trio.RunFinishedError:
            return

    return wake
