"""
Asynchronous twins of blocking methods.
"""

from __future__ import annotations

import functools
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
