"""Who hears what, and what listeners cannot do."""

from __future__ import annotations

import logging
import threading

import pytest

from llmcore import telemetry
from llmcore.errors import ParameterError
from llmcore.telemetry import Subject, TelemetryEvent, bus

from .kit import PATIENCE, Ears, Stage, assert_paired

HERE = Subject(kind="test", label="test#0")


def test_nobody_listens(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener neither a span nor an event is made, for anything."""
    made: list[str] = []

    def make(what):
        return lambda *args, **kwargs: made.append(what)

    monkeypatch.setattr(bus, "Span", make("span"))
    monkeypatch.setattr(bus, "TelemetryEvent", make("event"))
    model = stage.llama.load_model()
    _ = stage.sequence().generate([65], max_tokens=8).result
    model.dispose()

    assert made == []
    assert telemetry.span("evict", HERE) is bus.UNHEARD


def test_only_what_was_asked_for(stage: Stage) -> None:
    """A listener hears the names it gave; steps come to nobody who did not ask."""
    all_names, some = Ears(), Ears()
    with telemetry.listen(all_names), telemetry.listen(some, names=["decode", "step"]):
        _ = stage.sequence().generate([65], max_tokens=2).result

    assert {e.name for e in some.events} == {"decode", "step"}
    assert {e.name for e in all_names.events} == {
        *("request", "queue", "prefill", "decode")
    }


def test_misspelt_name() -> None:
    """A name that does not exist is refused, and the message lists those that do."""
    with pytest.raises(ParameterError, match=r"decode.*prefill.*got \['prefil'\]"):
        telemetry.listen(print, names=["prefil", "decode"])


@pytest.mark.parametrize("kind", [OSError, SystemExit, KeyboardInterrupt])
def test_a_listener_that_raises(
    stage: Stage, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """It is logged and kept once; the answer and the other listeners go on."""
    first, last = Ears(), Ears()

    def fail(event: TelemetryEvent) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise kind("its own fault")

    with (
        telemetry.listen(first),
        telemetry.listen(fail) as failing,
        telemetry.listen(last),
        caplog.at_level(logging.WARNING, "llmcore.telemetry"),
    ):
        result = stage.sequence().generate([65], max_tokens=4).result

    assert len(result.tokens) == 4
    assert type(failing.error) is kind
    assert failing.error.__traceback__ is None
    assert len(caplog.records) == 1
    assert first.events == last.events
    assert_paired(first.events)


def test_ctrl_c_in_a_listener() -> None:
    """On the main thread Ctrl-C passes; the span that it cut short has failed."""
    ears = Ears()

    def interrupt(event: TelemetryEvent) -> None:
        if event.phase == "start":
            raise KeyboardInterrupt

    with telemetry.listen(ears), telemetry.listen(interrupt):
        with pytest.raises(KeyboardInterrupt), telemetry.span("evict", HERE):
            raise AssertionError
        assert ears.story == ["evict start", "evict fail"]


def test_closed(stage: Stage) -> None:
    """After `close` nothing more is heard; closing twice is fine."""
    ears = Ears()
    subscription = telemetry.listen(ears)
    subscription.close()
    subscription.close()
    _ = stage.sequence().generate([65], max_tokens=2).result

    assert ears.events == []


def test_closed_in_the_middle() -> None:
    """Not even the end of what it heard the start of comes after `close`."""
    ears, other = Ears(), Ears()
    with telemetry.listen(other):
        subscription = telemetry.listen(ears)
        with telemetry.span("evict", HERE):
            subscription.close()

    assert (ears.story, other.story) == (
        ["evict start"],
        ["evict start", "evict complete"],
    )


def test_begun_in_the_middle() -> None:
    """No listener hears the end of what began before it came."""
    ears, other = Ears(), Ears()
    with telemetry.listen(other), telemetry.span("evict", HERE):
        subscription = telemetry.listen(ears)
    subscription.close()

    assert ears.events == []
    assert other.story == ["evict start", "evict complete"]


def test_a_listener_that_listens(stage: Stage) -> None:
    """A listener may add a listener, and end its own subscription."""
    late, subscriptions = Ears(), []

    def hear(event: TelemetryEvent) -> None:
        subscriptions.pop().close()
        subscriptions.append(telemetry.listen(late))

    subscriptions.append(telemetry.listen(hear))
    with telemetry.span("evict", HERE):
        pass
    with telemetry.span("evict", HERE):
        pass
    subscriptions.pop().close()

    assert late.story == ["evict start", "evict complete"]


def test_many_come_and_go(stage: Stage) -> None:
    """Listeners that come and go meanwhile disturb nobody, and each hears pairs."""
    stop = threading.Event()
    heard: list[Ears] = []

    def come_and_go() -> None:
        while not stop.is_set():
            heard.append(Ears())
            with telemetry.listen(heard[-1]):
                pass

    ears = Ears()
    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    with telemetry.listen(ears):
        for thread in threads:
            thread.start()
        for _ in range(20):
            with stage.context.get_sequence() as sequence:
                assert len(sequence.generate([65], max_tokens=8).result.tokens) == 8
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)

    assert_paired(ears.events)
    assert len(ears.of("request", "complete")) == 20


# -- spans -----------------------------------------------------------------------------


def test_span_in_a_block() -> None:
    """A block is a span: it knows the one around it, its facts, and its error."""
    ears = Ears()
    with (
        telemetry.listen(ears),
        pytest.raises(ValueError, match="bad"),
        telemetry.span("load", HERE, path="a"),
    ):
        with telemetry.span("evict", HERE) as inner:
            inner.add(bytes=7)
        raise ValueError("bad")

    load, evict, evicted, failed = ears.events
    assert (evict.parent, load.parent) == (load.span, None)
    assert (evicted.phase, evicted.attributes) == ("complete", {"bytes": 7})
    assert (failed.phase, failed.attributes) == (
        "fail",
        {"path": "a", "error_type": "ValueError", "error": "bad"},
    )
    assert_paired(ears.events)


def test_span_by_hand() -> None:
    """A span that was begun by hand ends once, whatever is called after that."""
    ears = Ears()
    with telemetry.listen(ears):
        outer = telemetry.span("download", HERE)
        inner = telemetry.span("load", HERE, parent=outer)
        inner.complete(bytes=1)
        inner.fail(ValueError("late"))
        outer.fail(ValueError("cut"))
        outer.complete()

    assert ears.story == [
        *("download start", "load start", "load complete", "download fail")
    ]
    assert ears.events[1].parent == outer.id


def test_unheard_parent() -> None:
    """A span whose parent nobody heard has none."""
    ears = Ears()
    with (
        telemetry.listen(ears, names="load"),
        telemetry.span("evict", HERE),
        telemetry.span("load", HERE),
    ):
        pass

    assert [event.parent for event in ears.events] == [None, None]
