"""
Asynchronous twins of blocking methods.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def twin(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """
    The same method without blocking the event loop (asyncio or trio).

    It runs in a worker thread. A task that is cancelled meanwhile waits for its end:
    the method is all or nothing, and so is its twin.
    """

    @functools.wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from anyio import to_thread

        return await to_thread.run_sync(functools.partial(method, *args, **kwargs))

    name = method.__name__
    run.__doc__ = f"`{name}` without blocking the event loop."
    run.__name__ = f"a{name}"
    run.__qualname__ = method.__qualname__.removesuffix(name) + run.__name__
    return run


async def unless_cancelled(
    make: Callable[[], T],
    cancelled: Callable[[], object] = lambda: None,
    *,
    undo: Callable[[T], object] = lambda made: None,
) -> T:
    """
    Do what may wait long in a worker thread, without blocking the event loop.

    Args:
        make: What to do.

        cancelled: Called when the task was cancelled, which does not wait for the
            worker then.

        undo: Called with what came too late, in the worker.
    """
    from anyio import get_cancelled_exc_class, to_thread

    given_up = threading.Event()

    def work() -> T:
        made = make()
        if given_up.is_set():
            undo(made)
        return made

    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True)
    except get_cancelled_exc_class():
        given_up.set()
        cancelled()
        raise
