"""What the tests of telemetry need: a null engine, and ears."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import llmcore
from llmcore.telemetry import TelemetryEvent
from llmcore.testing import NullScript, null_backend

PATIENCE = 20.0
"""Seconds until a test that hangs gives up."""


class Stage:
    """A model of a scripted null engine."""

    def __init__(self, script: NullScript | None = None) -> None:
        self.script = script or NullScript()
        self.llama = llmcore.get_llama(null_backend(self.script))
        self.model = self.llama.load_model()
        self.context = self.new_context(sequences=4)
        self._kept: list[object] = []  # so that nothing is forgotten before the end

    def new_context(self, **params: Any) -> llmcore.Context:
        """Another one."""
        return self.model.create_context(context_size=128, **params)

    def sequence(self, context: llmcore.Context | None = None) -> llmcore.Sequence:
        """One that is free."""
        self._kept.append((context or self.context).get_sequence())
        return self._kept[-1]  # type: ignore[return-value]


class Ears:
    """A listener that keeps what it hears, and lets a test wait for more."""

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: TelemetryEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, name: str, phase: str) -> TelemetryEvent:
        """The first such event, now or soon."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(name, phase), PATIENCE)
        return self.of(name, phase)[0]

    def of(self, name: str, phase: str | None = None) -> list[TelemetryEvent]:
        """The events of a name, and of a phase if it is given."""
        return [e for e in self.events if e.name == name and phase in (None, e.phase)]

    @property
    def story(self) -> list[str]:
        """What was heard, in order, such as ``"load start"``."""
        return [f"{event.name} {event.phase}" for event in self.events]


def assert_paired(events: Iterable[TelemetryEvent]) -> None:
    """Each span has one start, and after it one end that took no negative time."""
    begun: dict[int, TelemetryEvent] = {}
    ended: set[int] = set()
    for event in events:
        if event.phase == "start":
            assert event.span not in begun
            assert event.duration is None
            begun[event.span] = event
        else:
            start = begun[event.span]
            assert event.span not in ended
            assert event.duration == (event.time - start.time) / 1e9 >= 0
            assert (event.name, event.subject) == (start.name, start.subject)
            assert start.attributes.items() <= event.attributes.items()
            ended.add(event.span)
    assert begun.keys() == ended
