"""
What a process tells of itself, and how it comes to know it.
"""

from __future__ import annotations

import os
import sys
import time
from functools import cache
from typing import Any

from attrs import asdict, frozen

from llmcore import __version__
from llmcore.lifecycle import Node, ResourceInfo, observe, resources
from llmcore.lifecycle.tree import NODES
from llmcore.memory.machine import process_rss
from llmcore.values import ModelInfo


@frozen(kw_only=True)
class PublishedResource(ResourceInfo):
    """
    One live resource of a process, as it was when asked.

    Attributes:
        age: Seconds since it was made; None if that was before `publish`.

        size: Bytes, where they are known without asking the engine: the file of a
            model, or what the budget holds for it or for a context.
    """

    age: float | None = None
    size: int | None = None


@frozen(kw_only=True)
class ProcessInfo:
    """
    A process that opted in, as it was when asked.

    Attributes:
        pid: Its number.

        command: Its command line.

        time: When it answered, in seconds since 1970.

        version: Of its llmcore.

        rss: Bytes of RAM that it uses; None where the platform does not tell.

        resources: What lives there, the oldest first.

        problem: Why it said nothing of all that; empty if it did.
    """

    pid: int
    command: tuple[str, ...] = ()
    time: float = 0.0
    version: str = ""
    rss: int | None = None
    resources: tuple[PublishedResource, ...] = ()
    problem: str = ""


def snapshot() -> ProcessInfo:
    """This process as it is now; asks no engine and waits for nobody."""
    return ProcessInfo(
        pid=os.getpid(),
        command=tuple(sys.orig_argv),
        time=time.time(),
        version=__version__,
        rss=process_rss(),
        resources=tuple(map(_published, resources())),
    )


_births: dict[int, float] = {}


@cache
def remember_births() -> None:
    """Note from now on when each resource is made; only once in a process."""
    observe(_note)


def _note(step: str, node: Node) -> None:
    if step == "created":
        _births[node.number] = time.monotonic()
    else:
        _births.pop(node.number, None)


if hasattr(os, "register_at_fork"):  # a child has no resource of its parent's
    os.register_at_fork(after_in_child=_births.clear)


def _published(info: ResourceInfo) -> PublishedResource:
    born = _births.get(info.number)
    return PublishedResource(
        **asdict(info, recurse=False),
        age=None if born is None else time.monotonic() - born,
        size=_size(info.number),
    )


def _size(number: int) -> int | None:
    node = NODES.get(number)
    found = node and node.finalizer and node.finalizer.peek()
    if not found:
        return None
    resource: Any = found[0]
    reservation = getattr(resource, "_reservation", None)
    if reservation is not None:
        return int(reservation.footprint.total)
    info = getattr(resource, "info", None)
    return info.size_bytes if isinstance(info, ModelInfo) else None
