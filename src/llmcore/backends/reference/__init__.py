"""
The reference backend: the networks in plain NumPy, written to be read.

It reads the same GGUF files as llama.cpp and computes the same numbers, without
rounding on the way: it is the executable meaning of the seam, and the oracle that the
logits of other engines are compared with. Fast it is not.
"""

from __future__ import annotations

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

__all__ = ["INFO", "llmcore_backend_info"]

INFO = BackendInfo(
    name="reference",
    factory="llmcore.backends.reference.backend:ReferenceBackend",
    summary="plain NumPy: GGUF models computed to be compared with, not for speed",
    capabilities=frozenset(Capability) - {Capability.GPU, Capability.NATIVE_SAMPLING},
    formats=("gguf",),
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """The one backend of this plugin."""
    return INFO
