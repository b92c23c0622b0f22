"""
How a context is laid out, and the bytes of its cache.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.values import ContextParams

BLOCKS: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Values in a block of each cache type, and its bytes: those of ``ggml-common.h``."""

PADDING = 256
"""Cells are counted in these (``GGML_PAD`` in ``src/llama-context.cpp``)."""

AUTO_CONTEXT_SIZE = 4096
"""``context_size="auto"`` is the trained length, but not more tokens than this."""

_NO_FLASH_ATTENTION = frozenset({"grok"})


@frozen(kw_only=True)
class Layout:
    """
    What the engine makes of the parameters of a context.

    Attributes:
        cells: Tokens that one sequence can hold.

        sequences: How many there are, each with cells of its own.

        micro_batch: Tokens that are computed at once.

        flash: Whether attention scores are never written out.

        type_k: Element type of the keys; ``type_v`` is that of the values.

        embeddings: Whether vectors of texts are handed out.

        offload: Whether the cache of a layer is where the layer is.
    """

    cells: int
    sequences: int
    micro_batch: int
    flash: bool
    type_k: str
    type_v: str
    embeddings: bool
    offload: bool

    @classmethod
    def of(cls, shape: ModelShape, params: ContextParams) -> Layout:
        """Round as llama.cpp does for a new context (``src/llama-context.cpp``)."""
        size, sequences = _largest(shape, params), params.sequences
        batch = params.batch_size
        if shape.cached:  # an encoder may get more at once than it has positions
            batch = min(batch, size * sequences)
        at_once = params.batch_size if params.embeddings else params.micro_batch_size
        flash = params.flash_attention is not False
        return cls(
            cells=_padded(_padded(size * sequences) // sequences),
            sequences=sequences,
            micro_batch=min(at_once, batch),
            flash=flash and shape.architecture not in _NO_FLASH_ATTENTION,
            type_k=params.kv_type_k,
            type_v=params.kv_type_v,
            embeddings=params.embeddings,
            offload=params.offload_kv,
        )

    @property
    def tokens(self) -> int:
        """Tokens of the largest step that the engine prepares for."""
        most = min(self.micro_batch, self.cells * self.sequences)
        return -(-most // self.sequences) * self.sequences

    def cells_of(self, layer: LayerShape) -> int:
        """
        Tokens of one sequence that a layer keeps.

        With a window those that it sees and a micro batch more, which is written
        before the old ones may go (``src/llama-kv-cache-iswa.cpp``).
        """
        if layer.window == 0:
            return self.cells
        return _padded(min(self.cells, layer.window + self.micro_batch))


def _largest(shape: ModelShape, params: ContextParams) -> int:
    """The tokens that a context may come to have; see `ContextParams`."""
    size = params.context_size
    if size == "auto":
        return min(shape.trained_context or AUTO_CONTEXT_SIZE, AUTO_CONTEXT_SIZE)
    if isinstance(size, tuple):
        least, most = size
        return max(least, min(most, shape.trained_context or most))
    return size


def _padded(cells: int) -> int:
    return -(-cells // PADDING) * PADDING


def values_size(count: int, kind: str) -> int:
    """Bytes of ``count`` values in a row of one of `KV_TYPES`."""
    block, size = BLOCKS[kind]
    return -(-count // block) * size


def cache_size(layer: LayerShape, layout: Layout) -> int:
    """
    Bytes of the keys and values of one layer, for all sequences.

    ``cells * (kv_heads * key_size * bpe_k + kv_heads * value_size * bpe_v)``, as
    ``src/llama-kv-cache.cpp`` allocates them.
    """
    token = values_size(layer.keys, layout.type_k)
    token += values_size(layer.values, layout.type_v)
    return layout.sequences * layout.cells_of(layer) * token


def state_bytes(layer: LayerShape, layout: Layout) -> int:
    """Bytes of the recurrent state of one layer, for all sequences; always 32-bit."""
    return layout.sequences * (layer.history + layer.state) * 4
