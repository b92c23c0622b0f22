"""What is known of llama.cpp and what it does not check itself, by any binding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from llmcore.backends.llama_cpp.logs import Line
from llmcore.errors import (
    CapabilityError,
    ContextCreationError,
    InsufficientMemoryError,
    ModelLoadError,
    ParameterError,
)
from llmcore.values import (
    CacheKind,
    Capability,
    ContextMemory,
    ContextParams,
    ModelInfo,
    evolve,
)

# Numbers of `enum ggml_type`.
KV_TYPE_NUMBERS = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
BLOCK = 32
"""Values in a block of each of the quantised cache types."""

WITHOUT_CACHE = {
    "bert",
    "dream",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llada",
    "llada-moe",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "rnd1",
    "t5encoder",
    "wavtokenizer-dec",
}
"""Architectures for which the engine makes no cache: they see a whole text at once."""

POSITION_TABLES = {"gpt2", "mpt", "starcoder"}
"""Decoders that may look positions up; outside the table the process would end."""

CANNOT_SHIFT = {"smollm3", "step35"} | POSITION_TABLES
"""Architectures whose keys are not all rotated alike; the engine turns them so."""

PLAIN_ROTATIONS = (-1, 0, 2)
"""`enum llama_rope_type`: none, "norm" and "neox"; the others have 2D positions."""

POOLING_RANK = 4

SHIFTED_TYPES = ("f16", "f32")
"""Element types of keys that the engine rotates without loss, or without crashing."""

OUT_OF_MEMORY = re.compile(r"alloc|out of memory")
"""How the engine's own words for a failure tell of a lack of memory."""

REPORT = re.compile(r": +(\S+) +(.*\S) buffer size = +([\d.]+) MiB")
"""How the engine tells of a buffer: device, kind, size."""


def capabilities(info: ModelInfo, rope_type: int, gpu: bool) -> frozenset[Capability]:
    """All that the engine can do, less what this model cannot."""
    missing: set[Capability] = set()
    if not _can_shift(info, rope_type):
        missing |= {Capability.SHIFT}
    if info.cache_kind in (CacheKind.RECURRENT, CacheKind.HYBRID):
        missing |= {Capability.PARTIAL_REMOVE}
    if info.cache_kind is CacheKind.NONE:
        missing |= {
            Capability.LOGITS,
            Capability.NATIVE_SAMPLING,
            Capability.PARTIAL_REMOVE,
            Capability.COPY,
            Capability.STATE_IO,
        }
    if own_pooling(info) == POOLING_RANK:  # one score, not a vector
        missing |= {Capability.EMBEDDING}
    if not gpu:
        missing |= {Capability.GPU}
    return frozenset(Capability) - missing


def _can_shift(info: ModelInfo, rope_type: int) -> bool:
    """Whether the engine moves keys as if they had been evaluated there."""
    # Where a rotation also scales, as YaRN's does, each shift scales all keys again.
    scaling = info.metadata.get(f"{info.architecture}.rope.scaling.type", "none")
    factor = f"{info.architecture}.rope.scaling.attn_factor"
    return (
        info.cache_kind is CacheKind.FULL
        and info.architecture not in CANNOT_SHIFT
        and rope_type in PLAIN_ROTATIONS
        and scaling in ("none", "linear")
        and factor not in info.metadata
    )


def own_pooling(info: ModelInfo) -> int:
    """The number that the file gives, 0 for none."""
    return int(info.metadata.get(f"{info.architecture}.pooling_type", 0))


def longest(info: ModelInfo) -> int | None:
    """Positions there are, where the model looks them up instead of computing."""
    table = info.cache_kind is CacheKind.NONE or info.architecture in POSITION_TABLES
    return info.trained_context if table else None


def window(info: ModelInfo) -> int:
    """Positions that a sliding window sees, 0 if there is none."""
    if info.cache_kind is not CacheKind.SLIDING_WINDOW:
        return 0
    return int(info.metadata[f"{info.architecture}.attention.sliding_window"])


def check_context(params: ContextParams, info: ModelInfo) -> None:
    """
    Refuse what the engine would answer with an abort of the process, or not at all.

    Raises:
        ParameterError: Names the parameter.

        CapabilityError: The model cannot be used in this way.
    """
    size, limit = params.size, longest(info)
    if params.embeddings and Capability.EMBEDDING not in info.capabilities:
        raise CapabilityError(f"model {info.name!r} makes no embeddings")
    if size * params.sequences > 2**32 - 256 * params.sequences:
        raise ParameterError(
            f"context_size={size} times sequences={params.sequences} is more than "
            "the engine can count: make one of them smaller"
        )
    if limit is not None and size > limit:
        raise ParameterError(
            f"context_size must be at most {limit}, got {size}: "
            "the model has no positions beyond the length it was trained for"
        )
    if info.cache_kind is CacheKind.NONE and not params.embeddings:
        raise CapabilityError(
            f"model {info.name!r} only makes embeddings: "
            "create its context with embeddings=True"
        )
    if info.heads:
        _check_blocks("kv_type_k", params.kv_type_k, "key_length", info)
        _check_blocks("kv_type_v", params.kv_type_v, "value_length", info)


def _check_blocks(field: str, kind: str, length: str, info: ModelInfo) -> None:
    head = info.metadata.get(f"{info.architecture}.attention.{length}")
    size = int(head) if head else info.embedding_size // info.heads
    if kind.startswith(("q", "iq")) and size % BLOCK:
        raise ParameterError(
            f"{field}={kind!r} needs heads of a multiple of {BLOCK} values but those "
            f"of model {info.name!r} have {size}: use 'f16'"
        )


def resolve(params: ContextParams) -> ContextParams:
    """The parameters with numbers for ``None``, and coupled ones brought together."""
    threads = params.threads or _usable_cores()
    batch = params.batch_size
    if params.embeddings:  # pooling asserts that sequences share a batch evenly
        batch = -(-batch // params.sequences) * params.sequences
    return evolve(
        params,
        threads=threads,
        threads_batch=params.threads_batch or threads,
        batch_size=batch,
        micro_batch_size=min(params.micro_batch_size, batch),
    )


def creation_error(params: ContextParams, reason: str) -> Exception:
    """What to raise when the engine made no context, and said why."""
    message = (
        f"cannot create a context with context_size={params.context_size} and "
        f"sequences={params.sequences}: {reason}"
    )
    if OUT_OF_MEMORY.search(reason):
        return InsufficientMemoryError(f"{message}: make one of them smaller")
    return ContextCreationError(message)


def load_error(path: os.PathLike[str], reason: str) -> Exception:
    """What to raise when the engine loaded no model, and said why."""
    if OUT_OF_MEMORY.search(reason):
        return InsufficientMemoryError(
            f"cannot load model {str(path)!r}: {reason}: unload something, place fewer "
            "layers on the GPU, or choose a smaller model"
        )
    return ModelLoadError(path, reason)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usage(lines: Iterable[Line]) -> ContextMemory:
    """Sum up the buffers that the engine reports, in MiB, per device and kind."""
    cache, compute = 0.0, dict[str, float]()
    for line in lines:
        found = REPORT.search(line.text)
        if found is None:
            continue
        device, kind, size = found.groups()
        if kind in ("compute", "output"):
            compute[f"{device} {kind}"] = float(size)  # the last report holds
        else:
            cache += float(size)
    mib = 1 << 20
    return ContextMemory(
        kv_cache=round(cache * mib), compute=round(sum(compute.values()) * mib)
    )
