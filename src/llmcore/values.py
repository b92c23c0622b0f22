"""
The values that cross the seam between core and backends: frozen, validated, plain.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal

from attrs import Attribute, evolve, field, frozen
from attrs.validators import instance_of

from llmcore.params import (
    KV_TYPES,
    ContextParams,
    GenerationParams,
    ModelParams,
    SamplingParams,
    Shift,
    merge,
    merge_options,
    one_of,
)

__all__ = [
    "KV_TYPES",
    "SPEC_VERSION",
    "BackendInfo",
    "CacheKind",
    "Capability",
    "ContextMemory",
    "ContextParams",
    "Device",
    "GenerationParams",
    "ModelInfo",
    "ModelParams",
    "SamplingParams",
    "Shift",
    "evolve",
    "merge",
    "merge_options",
]

SPEC_VERSION = "1.1"
"""Version of the specification in ``spec/`` that this core implements."""


class Capability(enum.StrEnum):
    """
    An operation or a guarantee that a backend may have, never a tuning knob.

    Declared twice: an upper bound in `BackendInfo`, and what really holds for one
    loaded model in `ModelInfo`. Using an undeclared one raises `CapabilityError`.
    """

    MULTI_SEQUENCE = "multi-sequence"
    """A context can hold more than one sequence, and batch them."""
    LOGITS = "logits"
    """Raw logits can be read after an evaluation."""
    NATIVE_SAMPLING = "native-sampling"
    """The engine can choose a token by `SamplingParams` with the same meaning."""
    PARTIAL_REMOVE = "partial-remove"
    """The end of a sequence's cache can be removed (may be refused at run time)."""
    COPY = "copy"
    """A sequence's cache can be copied to another sequence without evaluating."""
    SHIFT = "shift"
    """Cached positions can be moved."""
    STATE_IO = "state-io"
    """A sequence's state can be turned into bytes and back."""
    ABORT = "abort"
    """An evaluation can be stopped from another thread while it runs."""
    EMBEDDING = "embedding"
    """Text can be turned into a vector."""
    CANCEL_LOAD = "cancel-load"
    """Loading reports progress and can be cancelled."""
    GPU = "gpu"
    """Layers can be placed on a GPU by this build."""


class CacheKind(enum.StrEnum):
    """What a model remembers, which decides what can be removed from it."""

    FULL = "full"
    SLIDING_WINDOW = "sliding-window"
    RECURRENT = "recurrent"
    HYBRID = "hybrid"
    NONE = "none"


@frozen(kw_only=True)
class BackendInfo:
    """
    What a plugin says about its backend before anything heavy is imported.

    Args:
        name: An identifier, unique among the installed backends.

        factory: ``"module:attribute"`` of a callable without arguments that returns a
            `llmcore.spi.Backend`; imported at first use.

        summary: One line for people.

        capabilities: The most that any model on this backend can have.

        formats: File formats it reads, such as ``("gguf",)``; empty means that it
            needs no file at all.

        requires: Distributions that must be installed, as requirement strings.

        spec: The spec version it was written for.

        exclusion: Calls never overlap within one of these: ``"context"``,
            ``"model"``, ``"device"`` or ``"process"``.
    """

    name: str = field()
    factory: str = field()
    summary: str = ""
    capabilities: frozenset[Capability] = frozenset()
    formats: tuple[str, ...] = field(default=(), validator=instance_of(tuple))
    requires: tuple[str, ...] = field(default=(), validator=instance_of(tuple))
    spec: str = SPEC_VERSION
    exclusion: Literal["context", "model", "device", "process"] = field(
        default="context", validator=one_of("context", "model", "device", "process")
    )

    @name.validator
    def _check_name(self, attribute: Attribute[str], value: object) -> None:
        if not isinstance(value, str) or not value.isidentifier():
            raise ValueError(f"name must be an identifier, got {value!r}")

    @factory.validator
    def _check_factory(self, attribute: Attribute[str], value: object) -> None:
        if not isinstance(value, str) or value.count(":") != 1:
            raise ValueError(
                f"factory must look like 'module:attribute', got {value!r}"
            )


@frozen(kw_only=True)
class Device:
    """
    A processor with memory of its own, in bytes.

    ``kind`` is ``"cpu"``, ``"gpu"``, ``"integrated-gpu"`` or ``"accelerator"``.
    ``api`` is the way to it, such as ``"cuda"``, ``"metal"``, ``"vulkan"`` or
    ``"rocm"``; empty if the backend does not say, and then nobody can ask for it.
    """

    name: str
    kind: str
    description: str = ""
    total: int = 0
    free: int = 0
    api: str = ""

    @property
    def used(self) -> int:
        """Bytes in use by anyone."""
        return max(0, self.total - self.free)


@frozen(kw_only=True)
class ModelInfo:
    """
    The unchanging facts about a loaded model; readable even after it is disposed.

    ``fingerprint`` tells one set of weights from another, as hex digits; empty if the
    backend cannot say. ``build`` names the engine and its version.
    ``special_tokens`` maps the text of each control token to its number; only the
    chat template may produce those. ``end_tokens`` are the tokens that end an answer.
    """

    architecture: str
    vocab_size: int
    name: str = ""
    description: str = ""
    fingerprint: str = ""
    build: str = ""
    trained_context: int = 0
    embedding_size: int = 0
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    parameters: int = 0
    size_bytes: int = 0
    cache_kind: CacheKind = CacheKind.FULL
    bos_token: int | None = None
    eos_token: int | None = None
    add_bos: bool = False
    end_tokens: frozenset[int] = frozenset()
    special_tokens: Mapping[str, int] = field(factory=dict)
    chat_template: str | None = None
    metadata: Mapping[str, str] = field(factory=dict, repr=False)
    capabilities: frozenset[Capability] = frozenset()


@frozen(kw_only=True)
class ContextMemory:
    """What a context uses, in bytes: its cache, and its working buffers."""

    kv_cache: int = 0
    compute: int = 0
