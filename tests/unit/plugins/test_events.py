"""Plugins hear what happens to resources, and cannot disturb it."""

from __future__ import annotations

import logging
import sys

import pytest

from llmcore.plugins import Registry, ResourceEvent

from .kit import HEAD, Site, plugin_code, problem_of

LISTENER = f"{HEAD}\nHEARD = []\n\n@hookimpl\ndef llmcore_resource_event(event):\n"


def install(
    site: Site, body: str = "    HEARD.append(event)", name: str = "ear"
) -> str:
    """Install a listener and return the name of its module."""
    return site.install(f"llmcore-{name}", LISTENER + body, plugin=name)


def emit(registry: Registry, number: int = 7) -> None:
    """Emit any event."""
    registry.emit("context", "created", "context 7", number, 3)


def test_heard(site: Site, registry: Registry) -> None:
    """A listener is given the event as a value."""
    module = install(site)
    _ = registry.backends

    emit(registry)

    [event] = sys.modules[module].HEARD
    assert event == ResourceEvent(
        kind="context", step="created", label="context 7", id=7, parent_id=3
    )


def test_not_loaded(site: Site, registry: Registry) -> None:
    """An event does not load the plugins."""
    module = install(site)

    emit(registry)

    assert module not in sys.modules


def test_nobody_listens(site: Site, registry: Registry) -> None:
    """Without a listener nothing is called, not even to make the event."""
    site.install()
    _ = registry.backends
    calls = []

    sys.setprofile(lambda frame, what, _: calls.append((what, frame.f_code.co_name)))
    registry.emit("context", "created", "context 7", 7)
    sys.setprofile(None)

    # Other programs' hooks may run at any time, such as those of the collector.
    called = [name for what, name in calls if what == "call" and name != "gc_callback"]
    assert called == ["emit"]


@pytest.mark.parametrize("error", ["OSError('disk')", "SystemExit"])
def test_isolated(site: Site, registry: Registry, error: str) -> None:
    """What one listener raises reaches neither the caller nor another listener."""
    first = install(site, name="a")
    install(site, f"    raise {error}", "broken")
    last = install(site, name="z")
    _ = registry.backends

    emit(registry)

    assert len(sys.modules[first].HEARD) == len(sys.modules[last].HEARD) == 1
    problem = problem_of(registry)
    assert (problem.plugin, problem.stage) == ("broken", "event")
    assert error.partition("(")[0] in problem.message


def test_reported_once(
    site: Site, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that fails each time is recorded and logged once."""
    install(site, "    HEARD.append(event)\n    raise OSError(event.id)")
    _ = registry.backends

    with caplog.at_level(logging.WARNING, "llmcore.plugins"):
        for number in range(5):
            emit(registry, number)

    assert problem_of(registry).message.endswith("OSError: 0")
    assert len(caplog.records) == 1
    assert len(sys.modules["llmcore_ear_ear"].HEARD) == 5


def test_still_usable(site: Site, registry: Registry) -> None:
    """A backend whose listener fails stays usable."""
    hook = "\n@hookimpl\ndef llmcore_resource_event():\n    raise OSError\n"
    site.install(code=plugin_code() + hook)
    _ = registry.backends

    emit(registry)

    assert problem_of(registry).stage == "event"
    assert registry.get("mine").problem is None


def test_interrupted(site: Site, registry: Registry) -> None:
    """Ctrl-C in a listener passes."""
    install(site, "    raise KeyboardInterrupt")
    _ = registry.backends

    with pytest.raises(KeyboardInterrupt):
        emit(registry)


def test_forgotten_by_reload(site: Site, registry: Registry) -> None:
    """A reload forgets what listeners did wrong before it."""
    install(site, "    raise OSError")
    _ = registry.backends
    emit(registry)

    registry.reload()

    assert registry.problems == []
