"""
The hooks that a plugin can implement; authors import `hookimpl` from here.

A plugin is a module named by an entry point in the group ``llmcore.backends``. It
imports only the standard library and light parts of llmcore: engines are imported by
the factory that `BackendInfo` names, at first use. An implementation may leave out
arguments that it does not need; that is how a hook can grow. Hooks choose and watch;
no token passes through one.

    from llmcore.hookspecs import hookimpl
    from llmcore.values import BackendInfo

    INFO = BackendInfo(name="mine", factory="llmcore_mine.backend:MyBackend")

    @hookimpl
    def llmcore_backend_info():
        return INFO
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from llmcore.plugins import BackendRequest, Registered, ResourceEvent, SourceInfo
    from llmcore.telemetry import TelemetryEvent
    from llmcore.values import BackendInfo

__all__ = ["hookimpl", "hookspec"]

PROJECT = "llmcore"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def llmcore_backend_info() -> BackendInfo | Iterable[BackendInfo]:  # type: ignore[empty-body]
    """
    Say which backends this plugin provides; called once, when plugins are loaded.

    Returns:
        One `BackendInfo`, or several.
    """


@hookspec
def llmcore_model_sources() -> SourceInfo | Iterable[SourceInfo]:  # type: ignore[empty-body]
    """
    Say which schemes of model sources this plugin adds; called once, as above.

    Returns:
        One `SourceInfo`, or several. The factory makes a `llmcore.sources.ModelSource`
        that fetches what ``llama.load_model("scheme:name")`` asks for.
    """


@hookspec(firstresult=True)
def llmcore_select_backend(
    request: BackendRequest, candidates: Sequence[Registered]
) -> str | None:
    """
    Choose the backend for ``backend="auto"``; the policy of an application.

    Args:
        request: What is to be loaded.

        candidates: The backends that can be used for it; never empty.

    Returns:
        The ``name`` or the qualified ``"distribution:name"`` of a candidate, or None
        to leave the choice to the next policy. Core's own comes last.
    """


@hookspec
def llmcore_resource_event(event: ResourceEvent) -> None:
    """
    Hear that a resource was created, disposed, or failed.

    Called on the thread that did it, which waits: be quick and take no lock that
    waits for llmcore. What it raises is recorded and never reaches that thread.
    """


@hookspec
def llmcore_telemetry_event(event: TelemetryEvent) -> None:
    """
    Hear of the start or the end of some work, but not of single steps of the engine.

    Called on the thread that does the work, as `llmcore_resource_event` is. That one
    says what there is, this one what is done and how long it takes.
    """
