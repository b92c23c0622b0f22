"""
The decisions of the kernel as pure functions: no lock, no thread, no clock.

Everything that can be decided from a small state is decided here and tested
exhaustively; the other modules only act on the answers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class State(enum.Enum):
    """Where a resource is in its life."""

    LIVE = "live"
    DISPOSING = "disposing"
    """Refuses new work; its memory is on the way back."""
    DISPOSED = "disposed"
    """Freed."""
    BROKEN = "broken"
    """The engine under it died; only `dispose` works."""
    FORKED = "forked"
    """Inherited by a forked child, where it must not be touched."""


class Event(enum.Enum):
    """What can happen to a resource."""

    DISPOSE = "dispose"
    FREED = "freed"
    BREAK = "break"
    FORK = "fork"


_TRANSITIONS = {
    (State.LIVE, Event.DISPOSE): State.DISPOSING,
    (State.LIVE, Event.BREAK): State.BROKEN,
    (State.LIVE, Event.FORK): State.FORKED,
    (State.BROKEN, Event.DISPOSE): State.DISPOSING,
    (State.BROKEN, Event.FORK): State.FORKED,
    (State.DISPOSING, Event.FREED): State.DISPOSED,
    (State.DISPOSING, Event.FORK): State.FORKED,
}


def after(state: State, event: Event) -> State:
    """The state that follows; an event without meaning in a state changes nothing."""
    return _TRANSITIONS.get((state, event), state)


def admits(state: State, *, draining: bool, running: bool) -> bool:
    """
    Whether a use may begin.

    Args:
        state: Of the resource.

        draining: Whether its disposal waits for the work that already runs.

        running: Whether the use belongs to work that began before the disposal.
    """
    return state is State.LIVE or (state is State.DISPOSING and draining and running)


class Linked(Protocol):
    """What `dispose_order` needs to know of a node."""

    @property
    def number(self) -> int: ...


N = TypeVar("N", bound=Linked)


def dispose_order(
    root: N,
    dependants: Callable[[N], Iterable[N]],
    owned: Callable[[N], Iterable[N]],
) -> list[N]:
    """
    All that goes when ``root`` goes, in the order in which to free it.

    That is everything which depends on it or is owned by something that goes,
    transitively. Each comes after all its dependants; of several possible ones the
    newest (highest number) comes first.
    """
    reached: dict[int, N] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.number not in reached:
            reached[node.number] = node
            waiting.extend(dependants(node))
            waiting.extend(owned(node))
    # A dependant is always created after what it depends on, so the newest first is
    # an order in which no node precedes one of its dependants.
    return [reached[number] for number in sorted(reached, reverse=True)]
