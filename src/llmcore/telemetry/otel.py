"""
Telemetry as OpenTelemetry spans and metrics, by its conventions for generative AI.

Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/, as of version 1.41.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcore.telemetry.bus import BY_DEFAULT, Subscription, listen
from llmcore.telemetry.values import TelemetryEvent

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_GEN_AI = {
    "operation": "gen_ai.operation.name",
    "backend": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "reused_tokens": "gen_ai.usage.cache_read.input_tokens",
    "generated_tokens": "gen_ai.usage.output_tokens",
    "finish_reason": "gen_ai.response.finish_reasons",
}
"""What the conventions call the facts of a request; others are called ``llmcore.``"""

_DIMENSIONS = ("operation", "backend", "model", "error_type")

_FINISH_REASONS = {
    "end": "stop",
    "max_tokens": "length",
    "context_full": "length",
}
"""Ours in the words of the conventions, where they have another one."""

_SECONDS = [0.01 * 2**n for n in range(14)]
_TOKENS = [4.0**n for n in range(14)]
_SECONDS_PER_TOKEN = [
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
]
"""Boundaries of the buckets, as the conventions have them."""


def use_opentelemetry(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Subscription:
    """
    Have everything that listeners hear by default become OpenTelemetry spans, and each
    request be counted in its metrics.

    A request is a child of the span that is current where it is made. No text of a
    prompt or of an answer is in it.

    Args:
        tracer_provider: By default the global one.

        meter_provider: By default the global one.

    Returns:
        What ends it; spans that are open then are never exported.

    Raises:
        ImportError: ``opentelemetry-api`` is not installed.
    """
    try:
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "use_opentelemetry() needs the package opentelemetry-api: "
            "pip install 'llmcore-runtime[otel]'"
        ) from error
    spans, metrics = _Spans(tracer_provider), _Metrics(meter_provider)

    def tell(event: TelemetryEvent) -> None:
        spans.tell(event)
        if event.name == "request" and event.phase != "start":
            metrics.record(event)

    return listen(tell, names=BY_DEFAULT)


class _Spans:
    """Those that are open, by number; lives as long as its subscription."""

    def __init__(self, provider: TracerProvider | None) -> None:
        from opentelemetry.trace import get_tracer

        self._tracer = get_tracer("llmcore", tracer_provider=provider)
        self._open: dict[int, Span] = {}

    def tell(self, event: TelemetryEvent) -> None:
        if event.phase == "start":
            self._begin(event)
        else:
            self._end(event)

    def _begin(self, event: TelemetryEvent) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        parent = None if event.parent is None else self._open.get(event.parent)
        self._open[event.span] = self._tracer.start_span(
            _title(event),
            context=None if parent is None else set_span_in_context(parent),
            kind=SpanKind.INTERNAL,  # for a model in the same process
            attributes=_named(event),
        )

    def _end(self, event: TelemetryEvent) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._open.pop(event.span)
        span.set_attributes(_named(event))
        if event.phase == "fail":
            span.set_status(Status(StatusCode.ERROR, event.attributes["error"]))
        span.end()


class _Metrics:
    """The histograms of requests; lives as long as its subscription."""

    def __init__(self, provider: MeterProvider | None) -> None:
        from opentelemetry.metrics import get_meter

        meter = get_meter("llmcore", meter_provider=provider)

        def histogram(name: str, unit: str, buckets: list[float]) -> Histogram:
            return meter.create_histogram(
                f"gen_ai.{name}", unit, explicit_bucket_boundaries_advisory=buckets
            )

        self._duration = histogram("server.request.duration", "s", _SECONDS)
        self._first = histogram("server.time_to_first_token", "s", _SECONDS)
        self._next = histogram("server.time_per_output_token", "s", _SECONDS_PER_TOKEN)
        self._usage = histogram("client.token.usage", "{token}", _TOKENS)

    def record(self, event: TelemetryEvent) -> None:
        """Count a request that has ended."""
        facts = event.attributes
        where = _named(event, only=_DIMENSIONS)
        assert event.duration is not None
        self._duration.record(event.duration, where)
        if event.phase == "fail":
            return
        for kind, key in (("input", "prompt_tokens"), ("output", "generated_tokens")):
            self._usage.record(facts[key], {**where, "gen_ai.token.type": kind})
        first, more = facts["time_to_first_token"], facts["generated_tokens"] - 1
        if first is not None:
            self._first.record(first, where)
            if more > 0:
                self._next.record((event.duration - first) / more, where)


def _title(event: TelemetryEvent) -> str:
    if event.name == "request":
        facts = event.attributes
        return f"{facts['operation']} {facts['model']}".rstrip()
    return f"llmcore.{event.name}"


def _named(
    event: TelemetryEvent, only: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """The facts of an event under the names of the conventions."""
    names = _GEN_AI if event.name == "request" else {}
    named: dict[str, Any] = {}
    for key, value in event.attributes.items():
        if value is None or key == "error" or (only is not None and key not in only):
            continue
        if key == "finish_reason":
            value = (_FINISH_REASONS.get(value, value),)
        name = "error.type" if key == "error_type" else names.get(key)
        named[name or f"llmcore.{key}"] = value
    if only is None:
        named["llmcore.subject"] = event.subject.label
    return named
