"""
Who still refers to an object, in words: for the message about a leak.

The collector knows the objects that refer to another one, but not the running
functions: those are looked for on the stacks of all threads.
"""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    TracebackType,
)
from typing import Any, NamedTuple

from llmcore.lifecycle import Resource

MOST = 3
"""Holders told of one object."""

DEPTH = 6
"""Steps from an object to what holds its holder."""

_OWN = "llmcore.testing."
_PAUSED = (GeneratorType, CoroutineType, AsyncGeneratorType)


class _Step(NamedTuple):
    """A holder in words, and the object to go on with; None at the end of the path."""

    words: str
    up: object


def holders(target: object) -> list[str]:
    """
    What keeps an object alive, each from the nearest reference to the farthest.

    Such as ``"local variable 'model' of load (app.py:7), the traceback of ValueError:
    no, global 'errors' of module app"``. Slow: looks at every object there is.
    """
    seen = {id(target)}
    ends: list[str] = []
    dead_ends: list[str] = []
    for step in _steps(target, seen):
        path = _path(step.up, DEPTH, seen)
        words = ", ".join(filter(None, [step.words, *path]))
        (ends if path or step.up is None else dead_ends).append(words)
    return list(dict.fromkeys(filter(None, ends or dead_ends)))[:MOST]


def _path(target: object, depth: int, seen: set[int]) -> list[str]:
    """The words of the first path up from an object."""
    if target is None or depth == 0:
        return []
    for step in _steps(target, seen):
        return [step.words, *_path(step.up, depth - 1, seen)]
    return []


def _steps(target: object, seen: set[int]) -> list[_Step]:
    """All that refers to an object and was not met yet."""
    running, ours = _running(target)
    referrers = gc.get_referrers(target)
    seen |= {id(referrers)} | ours
    steps = running
    for referrer in referrers:
        if isinstance(referrer, dict):
            referrer = _frame_of(referrer)
        if id(referrer) not in seen and not _is_ours(referrer):
            seen.add(id(referrer))
            steps.append(_step(referrer, target))
    return sorted(steps, key=lambda step: not isinstance(step.up, BaseException))


def _running(target: object) -> tuple[list[_Step], set[int]]:
    """Local variables of functions that run, and what was made to look at them."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found, made = [], set()
    frame: FrameType | None
    for ident, frame in sys._current_frames().items():
        while frame is not None:
            made.add(id(frame))
            if not _is_ours(frame) and frame.f_locals is not frame.f_globals:
                made.add(id(frame.f_locals))
                if name := _name_in(frame.f_locals, target):
                    here = ident == threading.get_ident()
                    where = "" if here else f" in thread {names.get(ident, ident)!r}"
                    found.append(_Step(_local(name, frame, where), None))
            frame = frame.f_back  # at last None, so that no cycle is left here
    return found, made


def _is_ours(referrer: object) -> bool:
    """Whether only this search refers to the object."""
    if isinstance(referrer, FrameType):
        return str(referrer.f_globals.get("__name__")).startswith(_OWN)
    return isinstance(referrer, _Step)


def _frame_of(values: dict[Any, Any]) -> object:
    """The ended function whose local variables these are; else they themselves."""
    for owner in gc.get_referrers(values):
        if isinstance(owner, FrameType) and owner.f_locals is values:
            return owner
    return values


def _step(referrer: Any, target: object) -> _Step:
    """What a referrer is to people."""
    if isinstance(referrer, dict):
        return _in_dict(referrer, target)
    if isinstance(referrer, FrameType):
        name = _name_in(referrer.f_locals, target)
        return _Step(_local(name, referrer) if name else "", referrer)
    if isinstance(referrer, _PAUSED):
        return _Step(f"a local variable of {referrer.__qualname__} (paused)", referrer)
    if isinstance(referrer, TracebackType):
        return _Step("", referrer)  # its exception says more
    if isinstance(referrer, BaseException) and isinstance(target, TracebackType):
        text = "".join(traceback.format_exception_only(referrer)).strip()
        return _Step(f"the traceback of {text[:80]}", referrer)
    if isinstance(referrer, CellType):
        return _Step("", referrer)  # of a closure
    if isinstance(referrer, FunctionType | MethodType):
        return _Step(f"the function {referrer.__qualname__}", referrer)
    if isinstance(referrer, list | tuple | set | frozenset):
        return _Step(f"an item of a {type(referrer).__name__}", referrer)
    return _attribute(_name_in(_attributes(referrer), target), referrer)


def _in_dict(values: dict[Any, Any], target: object) -> _Step:
    name = _name_in(values, target)
    module = sys.modules.get(str(values.get("__name__")))
    if module is not None and vars(module) is values:
        return _Step(f"global {name!r} of module {module.__name__}", None)
    for owner in gc.get_referrers(values):
        if _attributes(owner) is values:
            return _attribute(name, owner)
    return _Step(f"the value of {name!r} in a dict", values)


def _attribute(name: str | None, owner: object) -> _Step:
    what = f"attribute {name!r}" if name else "a part"
    if isinstance(owner, Resource):
        return _Step(f"{what} of {owner._node.label}", None)
    return _Step(f"{what} of a {type(owner).__qualname__}", owner)


def _attributes(owner: object) -> Any:
    """The attributes of an object, without running code of its class."""
    try:
        return object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}


def _name_in(values: Any, target: object) -> str | None:
    for name, value in list(values.items()):
        if value is target:
            return str(name)
    return None


def _local(name: str, frame: FrameType, where: str = "") -> str:
    code = frame.f_code
    place = f"{code.co_filename}:{frame.f_lineno}"
    return f"local variable {name!r} of {code.co_name}{where} ({place})"
