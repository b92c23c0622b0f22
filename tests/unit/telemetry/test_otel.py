"""Telemetry in the words of OpenTelemetry, with its own SDK."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmcore import telemetry
from llmcore.errors import OperationCancelledError
from llmcore.telemetry import Subscription

from .kit import Stage

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402


class Otel:
    """The SDK with exporters in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Those that have ended, by name; of a name the last."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @property
    def metrics(self) -> dict[str, Any]:
        """The points of each metric, by its name."""
        data = self.reader.get_metrics_data()
        assert data is not None
        [resource] = data.resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name: metric.data.data_points for metric in scope.metrics}


@pytest.fixture
def otel() -> Otel:
    """A new SDK."""
    return Otel()


@pytest.fixture
def used(stage: Stage, otel: Otel) -> Iterator[Subscription]:
    """The subscription that feeds it, from when the model is loaded."""
    with telemetry.use_opentelemetry(otel.tracers, otel.meters) as subscription:
        yield subscription
    assert subscription.error is None


def test_request(stage: Stage, otel: Otel, used: Subscription) -> None:
    """A request is a span by the conventions: name, kind, and facts."""
    sequence = stage.sequence()
    _ = sequence.generate([65, 66], max_tokens=2).result
    result = sequence.generate([65, 67], max_tokens=4, temperature=0.5).result

    span = otel.spans["text_completion null"]
    facts = dict(span.attributes or {})
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert facts.pop("llmcore.queue_time") == result.statistics.queue_time
    first = facts.pop("llmcore.time_to_first_token")
    assert first == result.statistics.time_to_first_token
    assert facts == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "null",
        "gen_ai.request.model": "null",
        "gen_ai.request.max_tokens": 4,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": result.usage.cached_tokens,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ("length",),
        "llmcore.subject": sequence._node.label,
    }


def test_parts(stage: Stage, otel: Otel, used: Subscription) -> None:
    """The parts of a request are its children, one after the other."""
    _ = stage.sequence().generate([65], max_tokens=2).result

    request = otel.spans["text_completion null"]
    parts = [otel.spans[f"llmcore.{name}"] for name in ("queue", "prefill", "decode")]
    assert {span.parent.span_id for span in parts if span.parent} == {
        request.context.span_id
    }
    times = [t for span in parts for t in (span.start_time or 0, span.end_time or 0)]
    assert times == sorted(times)
    assert dict(parts[2].attributes or {})["llmcore.generated_tokens"] == 2


def test_inside_of_the_application(
    stage: Stage, otel: Otel, used: Subscription
) -> None:
    """A request belongs to the span of the application in which it is made."""
    with otel.tracers.get_tracer("app").start_as_current_span("page") as page:
        _ = stage.sequence().generate([65], max_tokens=2).result

    parent = otel.spans["text_completion null"].parent
    assert parent is not None
    assert parent.span_id == page.get_span_context().span_id


def test_failure(stage: Stage, otel: Otel, used: Subscription) -> None:
    """A request that fails has an error status, its type, and no text of its own."""
    stream = stage.sequence().generate([65], max_tokens=100)
    next(stream)
    stream.cancel()
    with pytest.raises(OperationCancelledError):
        _ = stream.result

    span = otel.spans["text_completion null"]
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "OperationCancelledError"


def test_other_work(stage: Stage, otel: Otel, used: Subscription) -> None:
    """Loads and disposals are spans of our own names."""
    stage.llama.load_model("file").dispose()

    load = dict(otel.spans["llmcore.load"].attributes or {})
    assert (load["llmcore.path"], load["llmcore.model"]) == ("file", "null")
    assert "llmcore.dispose" in otel.spans


def test_metrics(stage: Stage, otel: Otel, used: Subscription) -> None:
    """Each request is counted: its tokens, its duration, its first and next tokens."""
    statistics = stage.sequence().generate([65], max_tokens=5).result.statistics

    metrics = otel.metrics
    where = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "null",
        "gen_ai.request.model": "null",
    }
    [duration] = metrics["gen_ai.server.request.duration"]
    [first] = metrics["gen_ai.server.time_to_first_token"]
    [following] = metrics["gen_ai.server.time_per_output_token"]
    assert duration.attributes == first.attributes == following.attributes == where
    assert duration.count == first.count == following.count == 1
    assert first.sum == statistics.time_to_first_token
    assert first.explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert len(first.bucket_counts) == 15
    used_tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"]
    }
    assert used_tokens == {"input": 1, "output": 5}


def test_failures_are_counted(stage: Stage, otel: Otel, used: Subscription) -> None:
    """A failed request counts with its error, and not for the times of tokens."""
    stream = stage.sequence().generate([65], max_tokens=100)
    next(stream)
    stream.close()

    [duration] = otel.metrics["gen_ai.server.request.duration"]
    assert duration.attributes["error.type"] == "OperationCancelledError"
    assert "gen_ai.server.time_to_first_token" not in otel.metrics


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ImportError, match=r"llmcore-runtime\[otel\]"):
        telemetry.use_opentelemetry()


def test_by_default(stage: Stage) -> None:
    """Where nobody set the SDK up, nothing is recorded and nothing fails."""
    with telemetry.use_opentelemetry() as subscription:
        _ = stage.sequence().generate([65], max_tokens=2).result

    assert subscription.error is None
