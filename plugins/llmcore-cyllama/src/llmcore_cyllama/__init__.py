"""llama.cpp through cyllama's ready-made wheels; imports no native code."""

from __future__ import annotations

from importlib import metadata

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

__all__ = ["BUILDS", "INFO", "installed_build", "llmcore_backend_info"]

BUILDS = ("cyllama", "cyllama-cuda12", "cyllama-vulkan", "cyllama-rocm", "cyllama-sycl")
"""Distributions of the same package; only one of them can be installed at a time."""


def installed_build() -> str:
    """Which of `BUILDS` is here; the first of them if none is."""
    here = (name for name in BUILDS if any(metadata.distributions(name=name)))
    return next(here, BUILDS[0])


INFO = BackendInfo(
    name="cyllama",
    factory="llmcore_cyllama.backend:CyllamaBackend",
    summary="llama.cpp, ready-made: GGUF models on the CPU and on most GPUs",
    capabilities=frozenset(Capability),
    formats=("gguf",),
    requires=(f"{installed_build()}>=0.7,<0.8",),
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """The one backend of this plugin."""
    return INFO
