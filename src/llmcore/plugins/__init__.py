"""
Finds the backends that are installed, and never fails because one of them is broken.

Importing this loads no plugin and not even pluggy; the first question to a `Registry`
does. What is wrong with a plugin becomes a `PluginProblem`.
"""

from __future__ import annotations

from llmcore.plugins.gpu import Gpu
from llmcore.plugins.registry import Registry
from llmcore.plugins.support import Support, support
from llmcore.plugins.values import (
    BackendRequest,
    PluginProblem,
    Registered,
    RegisteredSource,
    ResourceEvent,
    SourceInfo,
    Trial,
    Verdict,
)

__all__ = [
    "BackendRequest",
    "Gpu",
    "PluginProblem",
    "Registered",
    "RegisteredSource",
    "Registry",
    "ResourceEvent",
    "SourceInfo",
    "Support",
    "Trial",
    "Verdict",
    "emit_event",
    "registry",
    "reload_plugins",
    "support",
]

_default = Registry()

emit_event = _default.emit
"""Tell the plugins about a step in the life of a resource; see `Registry.emit`."""


def registry() -> Registry:
    """The registry of this process; always the same object."""
    return _default


def reload_plugins() -> None:
    """Find the plugins of this process again; see `Registry.reload`."""
    _default.reload()
