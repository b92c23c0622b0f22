"""Headers of models that nobody has to download."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmcore.gguf_header import GGUFHeader, GGUFTensor, Metadata

MakeHeader = Callable[..., GGUFHeader]


@pytest.fixture
def make_header() -> MakeHeader:
    """A header of an architecture, with keys and tensors (shape and bytes)."""

    def make(
        architecture: str,
        keys: dict[str, Metadata],
        tensors: dict[str, tuple[tuple[int, ...], int]] | None = None,
    ) -> GGUFHeader:
        placed = [
            GGUFTensor(name=name, shape=shape, type="F16", offset=0, size=size)
            for name, (shape, size) in (tensors or {}).items()
        ]
        return GGUFHeader(
            version=3,
            architecture=architecture,
            tensor_count=len(placed),
            data_offset=0,
            metadata={f"{architecture}.{name}": value for name, value in keys.items()},
            tensors=tuple(placed),
        )

    return make


@pytest.fixture
def make_llama(make_header: MakeHeader) -> MakeHeader:
    """A header of a Llama by the numbers that its cache depends on."""

    def make(
        *,
        layers: int,
        embedding: int,
        heads: int,
        kv_heads: int | None = None,
        **keys: Metadata,
    ) -> GGUFHeader:
        return make_header(
            "llama",
            {
                "block_count": layers,
                "embedding_length": embedding,
                "context_length": 8192,
                "vocab_size": 32000,
                "attention.head_count": heads,
                "attention.head_count_kv": kv_heads or heads,
                "feed_forward_length": embedding * 3,
                **keys,
            },
        )

    return make
