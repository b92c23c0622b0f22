"""
Who listens, and how a span tells them.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from functools import partial
from typing import Any, Self

from llmcore.errors import ParameterError
from llmcore.lifecycle import Node
from llmcore.plugins import registry
from llmcore.plugins.values import Origin
from llmcore.telemetry.values import NAMES, Name, Phase, Subject, TelemetryEvent

logger = logging.getLogger("llmcore.telemetry")

Listener = Callable[[TelemetryEvent], object]
"""Hears events on the thread that does the work, which waits for it."""

BY_DEFAULT = NAMES - {"step"}
"""What is told to those who do not say what they want; steps come with every token."""


def _log(error: BaseException) -> None:
    logger.warning("a listener failed: %r", error, exc_info=error)


class Subscription:
    """
    Lives until `close` or the end of its ``with`` block. Made by `listen`.

    Attributes:
        error: The first thing that the listener raised, without its traceback, or None.
            It is logged, and reaches nobody else.
    """

    def __init__(
        self,
        listener: Listener,
        names: frozenset[str],
        report: Callable[[BaseException], object] = _log,
    ) -> None:
        self.error: BaseException | None = None
        self.names = names
        self._listener = listener
        self._report = report
        self._closed = False

    def close(self) -> None:
        """No further call begins; one that runs in another thread may still run."""
        self._closed = True
        _subscribe(remove=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def hear(self, event: TelemetryEvent) -> None:
        """Call the listener; raises nothing of its own but Ctrl-C."""
        if self._closed:
            return
        try:
            self._listener(event)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and _is_main():
                raise
            if self.error is None:
                self._report(error)
                # A traceback would keep alive what the frames hold.
                self.error = error.with_traceback(None)


ears: Mapping[str, tuple[Subscription, ...]] = {}
"""Who hears which events; empty while nobody listens. Replaced, never changed."""

_subscriptions: list[Subscription] = []
_changing = threading.RLock()  # a signal handler may listen, too


def listen(
    listener: Listener, *, names: Iterable[str] | str | None = None
) -> Subscription:
    """
    Have events told to a listener.

    It is called on the thread that does the work, which waits: a slow one slows the
    engine down. It must take no lock that waits for llmcore; a queue is a good place
    to put events. What it raises is kept in `Subscription.error` and harms nobody.

    Each start that it hears is followed by one end, even if others come and go. Any
    thread.

    Args:
        listener: Called with each `TelemetryEvent`.

        names: Only these; by default all but ``"step"``.

    Raises:
        ParameterError: There are no events of such a name.
    """
    wanted = frozenset([names] if isinstance(names, str) else names or BY_DEFAULT)
    if unknown := sorted(wanted - NAMES):
        raise ParameterError(
            f"names must be some of {', '.join(sorted(NAMES))}, got {unknown}"
        )
    subscription = Subscription(listener, wanted)
    _subscribe(add=subscription)
    return subscription


def _subscribe(
    *, add: Subscription | None = None, remove: Subscription | None = None
) -> None:
    global ears
    with _changing:
        if add is not None:
            _subscriptions.append(add)
        if remove in _subscriptions:
            _subscriptions.remove(remove)
        everyone = [*_subscriptions, *map(_plugin, registry().watchers)]
        heard = {
            name: tuple(one for one in everyone if name in one.names) for name in NAMES
        }
        ears = {name: ones for name, ones in heard.items() if ones}


def _plugin(watcher: tuple[Origin, Callable[..., object]]) -> Subscription:
    """A plugin as a listener."""
    origin, tell = watcher
    report = partial(registry().report, origin, "event")
    return Subscription(lambda event: tell(event=event), BY_DEFAULT, report)


registry().on_load = _subscribe
_subscribe()


# -- spans -----------------------------------------------------------------------------

_numbers = itertools.count(1)


class Span:
    """
    One piece of work, from its start to `complete` or `fail`; what is called after that
    does nothing. Any thread, one at a time.

    As a context manager it ends with its block, and is the parent of the spans that are
    begun inside. Made by `span`; one that nobody hears is always the same object.
    """

    __slots__ = (
        *("_attributes", "_began", "_ears", "_outer"),
        *("id", "name", "parent", "subject"),
    )

    def __init__(
        self,
        listeners: tuple[Subscription, ...],
        name: Name,
        subject: Subject,
        parent: int | None,
        attributes: dict[str, Any],
    ) -> None:
        self.id = next(_numbers) if listeners else 0
        self.name = name
        self.subject = subject
        self.parent = parent
        self._ears = listeners  # an end is for those who heard the start
        self._attributes = attributes
        self._outer: Token[Span | None] | None = None
        self._began = time.monotonic_ns()
        if listeners:
            try:
                self._tell("start", self._began)
            except BaseException as error:  # Ctrl-C
                self.fail(error)
                raise

    def add(self, **attributes: Any) -> None:
        """Facts for its end."""
        if self._ears:
            self._attributes |= attributes

    def complete(self, **attributes: Any) -> None:
        """The work is done."""
        self.end("complete", attributes)

    def fail(self, error: BaseException, **attributes: Any) -> None:
        """The work ended with an error."""
        if self._ears:
            attributes |= {"error_type": type(error).__name__, "error": str(error)}
            self.end("fail", attributes)

    def end(self, phase: Phase, attributes: Mapping[str, Any]) -> None:
        """The work has ended in one way or the other."""
        if not self._ears:
            return
        self._attributes |= attributes
        now = time.monotonic_ns()
        try:
            self._tell(phase, now, (now - self._began) / 1e9)
        finally:
            self._ears = ()

    def _tell(self, phase: Phase, now: int, duration: float | None = None) -> None:
        event = TelemetryEvent(
            name=self.name,
            phase=phase,
            subject=self.subject,
            span=self.id,
            parent=self.parent,
            time=now,
            duration=duration,
            attributes=dict(self._attributes),
        )
        for listener in self._ears:
            listener.hear(event)

    def __enter__(self) -> Self:
        if self._ears:
            self._outer = _current.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._outer is not None:
            _current.reset(self._outer)
            self._outer = None
        if error is None:
            self.complete()
        else:
            self.fail(error)


_current: ContextVar[Span | None] = ContextVar("llmcore_span", default=None)

UNHEARD = Span((), "step", Subject(kind="", label=""), None, {})
"""The span of all work that nobody hears of."""


def span(
    name: Name,
    subject: Node | Subject,
    *,
    parent: Span | None = None,
    **attributes: Any,
) -> Span:
    """
    Begin a piece of work; costs next to nothing while nobody listens.

    Args:
        name: What is done.

        subject: The resource that it is done with, or a description of what is none.

        parent: What it is a part of; by default the span of the ``with`` block around.

        attributes: Facts that are known already.
    """
    listeners = ears.get(name)
    if listeners is None:
        return UNHEARD
    if isinstance(subject, Node):
        subject = Subject.of(subject)
    outer = _current.get() if parent is None else parent
    return Span(listeners, name, subject, (outer and outer.id) or None, attributes)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
