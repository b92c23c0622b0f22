"""
The null backend: an engine in plain Python with no model file, scripted by tests.

It writes readable nonsense, the same for the same cache contents on every machine,
keeps a ledger of every call, and fails, waits, lies or crashes where a
`NullScript` says so. Tests find all of it in `llmcore.testing`.
"""

from __future__ import annotations

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

__all__ = ["INFO", "llmcore_backend_info"]

INFO = BackendInfo(
    name="null",
    factory="llmcore.backends.null.backend:NullBackend",
    summary="a deterministic engine without a model, for tests",
    capabilities=frozenset(Capability) - {Capability.GPU},
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """Say what this backend is; imports nothing of it."""
    return INFO
