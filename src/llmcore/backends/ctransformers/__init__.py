"""
ctransformers: the plugin, which imports no native code.

The library was frozen in 2023 and reads what was common then: GGUF files of Llamas
with a SentencePiece vocabulary and an output matrix of their own, and the files from
before GGUF, "ggml", "ggmf" and "ggjt", of Llama, GPT-J, GPT-NeoX (Pythia, StableLM,
Dolly 2) and GPT-2 (StarCoder). Which of them a file is, its contents say; anything else
is refused before the library sees it.
"""

from __future__ import annotations

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

__all__ = ["INFO", "llmcore_backend_info"]

INFO = BackendInfo(
    name="ctransformers",
    factory="llmcore.backends.ctransformers.backend:CtransformersBackend",
    summary="ctransformers: GGML models from before GGUF, and early GGUF, on the CPU",
    capabilities=frozenset({Capability.LOGITS, Capability.PARTIAL_REMOVE}),
    formats=("gguf", "ggml", "ggmf", "ggjt"),
    requires=("ctransformers>=0.2.27,<0.3",),
    # The working memory of most of its models is one per process.
    exclusion="process",
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """The one backend of this plugin."""
    return INFO
