"""llama.cpp through llama-cpp-python: the plugin, which imports no native code."""

from __future__ import annotations

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

__all__ = ["INFO", "llmcore_backend_info"]

INFO = BackendInfo(
    name="llama_cpp",
    factory="llmcore.backends.llama_cpp.backend:LlamaCppBackend",
    summary="llama.cpp: GGUF models on the CPU and on most GPUs",
    capabilities=frozenset(Capability),
    formats=("gguf",),
    requires=("llama-cpp-python>=0.3.36",),
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """The one backend of this plugin."""
    return INFO
