"""
How much memory a context takes, and how many tokens fit into one evaluation.

The library allocates without asking, and ends the process where it gets nothing. Some
model types compute in buffers of a fixed size, and write past their end.
"""

from __future__ import annotations

from llmcore.backends.ctransformers.model_file import ModelFile

MOST_AT_ONCE = 512
"""Tokens that the library plans for where it plans at all."""

BUFFER = 240 << 20
"""Bytes in each working buffer of the other model types, less some for bookkeeping."""
BUFFERS = 3 * (256 << 20)
"""What they allocate, once per process."""

GRAPH = 4 << 20
"""Bytes that the description of a computation takes."""


def cache_bytes(file: ModelFile, context_size: int) -> int:
    """Size of the keys and values."""
    sizes = file.sizes
    per_token = 2 * sizes.layers * sizes.keys * sizes.cache_bytes
    return per_token * (sizes.positions or context_size)


def compute_bytes(file: ModelFile, context_size: int, tokens: int) -> int:
    """At most what it takes besides to evaluate some tokens at once."""
    sizes = file.sizes
    if sizes.positions is not None:
        layer, rest, copies = _working_memory(file, context_size)
        layers = 1 if file.scratch else sizes.layers
        return tokens * (layers * layer + rest) + copies
    values = (
        sizes.heads * context_size
        + 16 * sizes.embedding
        + 6 * sizes.feed_forward
        + 2 * sizes.vocabulary
    )
    return GRAPH + 4 * values * min(context_size, MOST_AT_ONCE)


def needed_bytes(file: ModelFile, context_size: int, *, mapped: bool) -> int:
    """At most what a load allocates, and the first evaluation after it."""
    weights = 0 if mapped and file.mappable else file.info.size_bytes
    planned = (
        compute_bytes(file, context_size, MOST_AT_ONCE)
        if file.sizes.positions is None
        else BUFFERS
    )
    return weights + cache_bytes(file, context_size) + planned


def tokens_at_once(file: ModelFile, context_size: int) -> int:
    """The most tokens that fit into the working memory; 0 if not even one does."""
    if file.sizes.positions is None:
        return MOST_AT_ONCE
    layer, rest, copies = _working_memory(file, context_size)
    if not file.scratch:
        return BUFFER // (file.sizes.layers * layer + rest)
    return max(0, min((BUFFER - copies) // layer, BUFFER // rest))


def _working_memory(file: ModelFile, context_size: int) -> tuple[int, int, int]:
    """
    Bytes for each token in a layer, for each token outside of them, and for none.

    An upper bound of the tensors that ``models/llms/*.cc`` make, of 4 bytes a value:
    of a token in a layer, less than 40 embeddings and a score per head and position.
    """
    sizes = file.sizes
    scores = sizes.heads * context_size
    layer = 4 * (40 * sizes.embedding + scores)
    rest = 4 * (8 * sizes.embedding + 3 * sizes.vocabulary + scores)
    copies = 4 * context_size * sizes.embedding if file.copies_values else 0
    return layer, rest, copies
