"""Loading and disposing are told, whether they work or not."""

from __future__ import annotations

import pytest

from llmcore import telemetry
from llmcore.errors import DisposeError, ModelLoadError, OperationCancelledError

from .kit import Ears, Stage, assert_paired


def test_load(stage: Stage, ears: Ears) -> None:
    """A load tells its path, the model that came of it, and its bytes."""
    with stage.llama.load_model("some/path") as model:
        loads = list(ears.events)

    assert [event.phase for event in loads] == ["start", "complete"]
    assert loads[1].attributes == {
        "path": "some/path",
        "model": "null",
        "bytes": model.info.size_bytes,
    }
    assert {e.subject.number for e in loads} == {stage.llama._node.number}
    assert_paired(loads)


def test_failed_load(stage: Stage, ears: Ears) -> None:
    """A load that fails tells why."""
    stage.script.fail("load")
    with pytest.raises(ModelLoadError):
        stage.llama.load_model()

    assert ears.story == ["load start", "load fail"]
    assert ears.events[1].attributes["error_type"] == "ModelLoadError"
    assert_paired(ears.events)


def test_cancelled_load(stage: Stage, ears: Ears) -> None:
    """A load that its caller cancels has failed."""
    with pytest.raises(OperationCancelledError):
        stage.llama.load_model(progress=lambda share: False)

    assert ears.story == ["load start", "load fail"]


def test_disposal(stage: Stage, ears: Ears) -> None:
    """Each resource that a disposal frees is told, children first."""
    stage.sequence()
    stage.llama.dispose()

    assert ears.story == ["dispose start", "dispose complete"] * 4
    kinds = [e.subject.kind for e in ears.events[::2]]
    assert kinds == ["sequence", "context", "model", "llama"]
    assert_paired(ears.events)


def test_failed_disposal(ears: Ears) -> None:
    """A teardown that raises is told as a failure, and the rest goes on."""
    stage = Stage()
    stage.script.fail("close_context")
    with pytest.raises(DisposeError):
        stage.llama.dispose()

    ends = {e.subject.kind: e for e in ears.of("dispose") if e.phase != "start"}
    assert ends["context"].phase == "fail"
    assert ends["context"].attributes["error_type"] == "DisposeError"
    assert ends["model"].phase == ends["llama"].phase == "complete"
    assert_paired(ears.of("dispose"))


def test_forgotten(ears: Ears) -> None:
    """What the collector has to dispose is told, too."""
    from llmcore.lifecycle import collect_forgotten

    stage = Stage()
    with pytest.warns(ResourceWarning):
        del stage
        collect_forgotten()

    ears.wait("dispose", "complete")
    assert_paired(ears.of("dispose"))


def test_disposal_inside_of_other_work(stage: Stage, ears: Ears) -> None:
    """A disposal inside of an eviction is a part of it."""
    with telemetry.span("evict", stage.model._node) as evict:
        stage.model.dispose()

    assert {e.parent for e in ears.of("dispose")} == {evict.id}


def test_nothing_after_the_end(stage: Stage, ears: Ears) -> None:
    """When the disposal of a context has returned, all that ran there has ended."""
    streams = [stage.sequence().generate([65], max_tokens=100) for _ in range(4)]
    for stream in streams:
        next(stream)
    stage.context.dispose()

    assert_paired(ears.events)
    assert ears.story[-1] == "dispose complete"
    assert ears.events[-1].subject.kind == "context"


def test_disposed_while_it_is_heard(stage: Stage) -> None:
    """A listener that disposes what it hears of is no deadlock."""
    ears = Ears()

    def dispose(event: telemetry.TelemetryEvent) -> None:
        if event.name == "decode" and event.phase == "start":
            stage.context.dispose()

    with telemetry.listen(dispose) as subscription, telemetry.listen(ears):
        stream = stage.sequence().generate([65], max_tokens=50)
        failure = ears.wait("request", "fail")
        stream.close()

    assert failure.attributes["error_type"] == "DisposedError"
    assert subscription.error is None
