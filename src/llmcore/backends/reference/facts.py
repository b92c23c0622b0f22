"""What is known of a model, and what a context of it can be."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import TokenType

from llmcore.backends.reference import INFO
from llmcore.backends.reference.context import KV_TYPES
from llmcore.backends.reference.gguf_file import Settings, Weights
from llmcore.backends.reference.tokenizers.tokenizer import Tokenizer
from llmcore.errors import CapabilityError, ParameterError
from llmcore.fingerprint import fingerprint
from llmcore.values import CacheKind, Capability, ContextParams, ModelInfo, evolve

MISSING: dict[CacheKind, set[Capability]] = {
    CacheKind.FULL: set(),
    CacheKind.RECURRENT: {Capability.PARTIAL_REMOVE, Capability.SHIFT},
    CacheKind.NONE: {
        Capability.LOGITS,
        Capability.PARTIAL_REMOVE,
        Capability.SHIFT,
        Capability.COPY,
        Capability.STATE_IO,
    },
}
"""What a network cannot do, by what it remembers."""


def model_info(
    settings: Settings,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    path: Path,
    kind: CacheKind,
    pools: bool,
) -> ModelInfo:
    """
    The facts; sizes in bytes are those in memory, not in the file.

    Args:
        kind: What the network remembers.

        pools: Whether a text can become one vector.
    """
    vocabulary, arrays = tokenizer.vocabulary, weights.arrays.values()
    missing = MISSING[kind] | (set() if pools else {Capability.EMBEDDING})
    name = settings.text("general.name", "")
    heads = settings.integer("attention.head_count", 0)
    return ModelInfo(
        architecture=settings.architecture,
        vocab_size=len(vocabulary.texts),
        name=name,
        description=f"{settings.architecture} in 32-bit floats",
        fingerprint=fingerprint(path),
        build=f"llmcore {version('llmcore-runtime')} (NumPy {np.__version__})",
        trained_context=settings.integer("context_length"),
        embedding_size=settings.integer("embedding_length"),
        layers=settings.integer("block_count"),
        heads=heads,
        kv_heads=settings.integer("attention.head_count_kv", heads),
        parameters=sum(array.size for array in arrays),
        size_bytes=sum(array.nbytes for array in arrays),
        cache_kind=kind,
        bos_token=vocabulary.special.get("bos"),
        eos_token=vocabulary.special.get("eos"),
        add_bos=tokenizer.add_bos,
        end_tokens=vocabulary.end_tokens,
        special_tokens=vocabulary.of_kind(TokenType.CONTROL),
        chat_template=settings.text("tokenizer.chat_template", "") or None,
        metadata=_metadata(settings),
        capabilities=INFO.capabilities - missing,
    )


def _metadata(settings: Settings) -> dict[str, str]:
    """What is not a list, as text; without what describes only the file."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in settings.metadata.items()
        if not isinstance(value, list) and not key.startswith("GGUF.")
    }


def resolve(params: ContextParams) -> ContextParams:
    """The parameters with values for what is left open; NumPy has its own threads."""
    threads = params.threads or os.cpu_count() or 1
    size = params.batch_size if params.embeddings else params.micro_batch_size
    return evolve(
        params,
        threads=threads,
        threads_batch=params.threads_batch or threads,
        micro_batch_size=min(size, params.batch_size),
        flash_attention=params.flash_attention is True,
    )


def check_context(params: ContextParams, info: ModelInfo) -> None:
    """
    Refuse what is not done here, instead of doing something else.

    Args:
        params: Resolved.

    Raises:
        ParameterError: Names the parameter.

        CapabilityError: The model makes embeddings only, or none.
    """
    if params.embeddings and Capability.EMBEDDING not in info.capabilities:
        raise CapabilityError(f"model {info.name!r} makes no embeddings")
    if info.cache_kind is CacheKind.NONE:
        _check_encoder(params, info)
    for field in ("kv_type_k", "kv_type_v"):
        kind = getattr(params, field)
        if kind not in KV_TYPES:
            raise ParameterError(
                f"{field}={kind!r} but the reference backend has no such cache: "
                f"use {' or '.join(map(repr, KV_TYPES))}"
            )
    if params.flash_attention:
        raise ParameterError(
            "flash_attention=True but the reference backend has none: use 'auto'"
        )


def _check_encoder(params: ContextParams, info: ModelInfo) -> None:
    if not params.embeddings:
        raise CapabilityError(
            f"model {info.name!r} only makes embeddings: "
            "create its context with embeddings=True"
        )
    if params.size > info.trained_context:
        raise ParameterError(
            f"context_size must be at most {info.trained_context}, got "
            f"{params.context_size}: the model has no positions beyond the length it "
            "was trained for"
        )
