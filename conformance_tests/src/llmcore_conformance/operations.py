"""
Every public operation of a protocol object, found by introspection, ready to be called.

So an operation that is added to the protocol is tested from the first day.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from llmcore import Resource

FACTS = frozenset(
    {
        # Allowed by `dispose.allowed-after`: the state, and another way to dispose.
        *("disposed", "dispose", "adispose", "dispose_if_unused", "close"),
        # Facts that never change, and what is worked out from them alone.
        *(
            "capabilities",
            "size",
            "support",
            "require",
            "check_tokens",
            "chat_template",
        ),
        *("make_chat_template", "context"),
        "resources",  # what lives, which is nothing
    }
)
"""Public names that are no operations on a living resource."""

ARGUMENTS: dict[str, Any] = {
    "length": 0,
    "messages": (),
    "owner": None,
    "parts": ("a",),
    "path": "state.bin",
    "prompt": "a",
    "receipt": None,
    "resource": None,
    "text": "a",
    "token": 0,
    "tokens": (0,),
}
"""What to pass for a required parameter, by its name."""


def operations(resource: Resource) -> Iterator[tuple[str, Callable[[], object]]]:
    """The public operations of an object that need it alive, by name."""
    yield "__enter__", resource.__enter__
    for name in dir(type(resource)):
        if name.startswith("_") or name in FACTS:
            continue
        member = inspect.getattr_static(type(resource), name)
        if inspect.isfunction(member):
            yield name, partial(_call, getattr(resource, name))
        else:
            yield name, partial(getattr, resource, name)


def _call(method: Callable[..., Any]) -> object:
    required = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    arguments = {name: ARGUMENTS[name] for name in required}
    if not inspect.iscoroutinefunction(method):
        result = method(**arguments)
        if isinstance(result, AbstractContextManager):  # begins when it is entered
            with result:
                pass
        return result
    import anyio

    return anyio.run(partial(method, **arguments))
