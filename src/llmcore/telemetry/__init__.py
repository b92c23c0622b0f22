"""
What happens and how long it takes, told to whoever listens.

Each piece of work is a *span*: it tells its start, and then once that it is complete or
that it failed. `TelemetryEvent` is all there is to it:

    from llmcore import telemetry

    with telemetry.listen(print):
        ...

While nobody listens no event is made. `Statistics` come with every answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcore.telemetry import disposals as disposals
from llmcore.telemetry.bus import Listener, Span, Subscription, listen, span
from llmcore.telemetry.request import RequestTrace
from llmcore.telemetry.values import NAMES, Name, Phase, Statistics, Subject
from llmcore.telemetry.values import TelemetryEvent as TelemetryEvent

if TYPE_CHECKING:
    from llmcore.telemetry.otel import use_opentelemetry as use_opentelemetry

__all__ = [
    "NAMES",
    "Listener",
    "Name",
    "Phase",
    "RequestTrace",
    "Span",
    "Statistics",
    "Subject",
    "Subscription",
    "TelemetryEvent",
    "listen",
    "span",
    "use_opentelemetry",
]


def __getattr__(name: str) -> Any:
    if name == "use_opentelemetry":
        from llmcore.telemetry.otel import use_opentelemetry

        return use_opentelemetry
    raise AttributeError(f"module 'llmcore.telemetry' has no attribute {name!r}")
