"""
`ModelShape`: what the memory of a model and of its contexts depends on.
"""

from __future__ import annotations

from attrs import frozen

from llmcore.gguf_header import GGUFHeader
from llmcore.memory.header_values import HeaderValues
from llmcore.memory.recurrence import (
    has_attention,
    recurrent_layers,
    scan_parameters,
    state_sizes,
)
from llmcore.memory.weights import Weights
from llmcore.memory.windows import windows
from llmcore.values import CacheKind, ModelInfo

WITHOUT_CACHE = frozenset(
    {
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
)
"""Architectures that see a whole text at once and keep nothing of it."""

_MAX_LAYERS = 1024

_SHARED_FROM = {"gemma3n": 20}
"""From this layer on, the cache of an earlier layer is used."""


@frozen(kw_only=True)
class LayerShape:
    """
    One layer; a size is a number of values unless it says bytes.

    Attributes:
        weights: Bytes of its tensors.

        heads: Of its attention, 0 if it has none.

        kv_heads: Heads of its cached keys and values, 0 if it caches none.

        key_size: Of one key head.

        value_size: Of one value head; 0 where values are a part of the keys (MLA).

        window: Tokens that it sees, 0 for all.

        history: Of the last inputs of its convolution for one sequence, if it has one.

        state: Of its recurrent state for one sequence, 0 if it has none.

        inner: Width of its recurrent part, 0 if it has none.

        scan_parameters: Of the scan through that, for one token.

        feed_forward: Width of its feed-forward network; of experts, of all together
            that a token is sent to.

        gated: Whether that has a gate, and so another product of this width.

        experts: How many experts a token is sent to, 1 if there are none.
    """

    weights: int = 0
    heads: int = 0
    kv_heads: int = 0
    key_size: int = 0
    value_size: int = 0
    window: int = 0
    history: int = 0
    state: int = 0
    inner: int = 0
    scan_parameters: int = 0
    feed_forward: int = 0
    gated: bool = True
    experts: int = 1

    @property
    def keys(self) -> int:
        """Values of the keys of one token."""
        return self.kv_heads * self.key_size

    @property
    def values(self) -> int:
        """Values of the values of one token."""
        return self.kv_heads * self.value_size

    @property
    def result_size(self) -> int:
        """Values of what one head makes of one token."""
        return self.value_size or self.key_size


@frozen(kw_only=True)
class ModelShape:
    """
    The sizes of one model; `ModelShape.of` reads them from a header.

    Attributes:
        name: Of the model, for messages.

        architecture: As the file names it.

        embedding: Values of a token between two layers.

        vocabulary: Number of tokens.

        trained_context: Tokens that it was trained for.

        layers: One by one; those that only predict further tokens are empty, since the
            engine does not load them.

        input_weights: Bytes of what comes before the layers.

        output_weights: Bytes of what comes after them; a matrix that is shared with
            the input counts as input.

        tied_weights: Bytes of that matrix, which a GPU gets a copy of; 0 if the output
            has its own.

        cached: Whether a context keeps anything of a text.

        rotated: Whether positions are told by rotating queries and keys.

        normed_first: Whether a layer's parts take a normalised copy of its input.

        from_info: Whether it is a guess from the facts about a loaded model.
    """

    name: str = ""
    architecture: str = ""
    embedding: int
    vocabulary: int
    trained_context: int = 0
    layers: tuple[LayerShape, ...]
    input_weights: int = 0
    output_weights: int = 0
    tied_weights: int = 0
    cached: bool = True
    rotated: bool = True
    normed_first: bool = True
    from_info: bool = False

    @property
    def weights(self) -> int:
        """Bytes of all tensors that are loaded, each counted once."""
        layers = sum(layer.weights for layer in self.layers)
        return self.input_weights + layers + self.output_weights

    @property
    def cache_kind(self) -> CacheKind:
        """What a context remembers."""
        keeps = any(layer.kv_heads for layer in self.layers)
        if not self.cached:
            return CacheKind.NONE
        if any(layer.history or layer.state for layer in self.layers):
            return CacheKind.HYBRID if keeps else CacheKind.RECURRENT
        slides = any(layer.window for layer in self.layers)
        return CacheKind.SLIDING_WINDOW if slides else CacheKind.FULL

    @classmethod
    def of(cls, header: GGUFHeader) -> ModelShape:
        """
        Read from the header of a GGUF file.

        Raises:
            ModelLoadError: A number in it makes no sense; names the key.
        """
        values, weights = HeaderValues(header), Weights(header.tensors)
        name = header.metadata.get("general.name", "")
        cached = header.architecture not in WITHOUT_CACHE
        return cls(
            name=name if isinstance(name, str) else "",
            architecture=header.architecture,
            embedding=values.integer("embedding_length"),
            vocabulary=weights.vocabulary or values.integer("vocab_size"),
            trained_context=values.integer("context_length"),
            layers=_Layers(values, weights).all(),
            input_weights=weights.input,
            output_weights=weights.output,
            tied_weights=weights.tied if cached else 0,
            cached=cached,
            rotated=not weights.has("position_embd.weight"),
            normed_first=not weights.layers or weights.has("blk.0.attn_norm.weight"),
        )

    @classmethod
    def rough(cls, info: ModelInfo) -> ModelShape:
        """A guess for a model whose file has no header that says more."""
        head = info.embedding_size // info.heads if info.heads else 0
        layer = LayerShape(
            heads=info.heads,
            kv_heads=info.kv_heads or info.heads,
            key_size=head,
            value_size=head,
            feed_forward=4 * info.embedding_size,
            gated=False,
        )
        return cls(
            name=info.name,
            architecture=info.architecture,
            embedding=info.embedding_size,
            vocabulary=info.vocab_size,
            trained_context=info.trained_context,
            layers=(layer,) * info.layers,
            input_weights=info.size_bytes,
            cached=info.cache_kind is not CacheKind.NONE,
            from_info=True,
        )


class _Layers:
    """Reads the layers, of which each number may be given for all or one by one."""

    def __init__(self, values: HeaderValues, weights: Weights) -> None:
        self._values, self._weights = values, weights
        self._every = every = values.integer("block_count")
        if every > _MAX_LAYERS:
            raise values.invalid("block_count", f"is {every}, more than {_MAX_LAYERS}")
        # What predicts further tokens comes last, and is not loaded.
        self._count = count = max(every - values.integer("nextn_predict_layers"), 0)
        self._heads = values.per_layer("attention.head_count", every)
        key = "attention.head_count_kv"
        given = values.get(key) is not None
        self._kv_heads = values.per_layer(key, every) if given else self._heads
        self._feed_forward = values.per_layer("feed_forward_length", every)
        self._used = values.per_layer("expert_used_count", every)
        self._recurrent = recurrent_layers(
            values, self._kv_heads[:count], self._feed_forward[:count]
        )
        self._windows = windows(values, count)
        shared = values.integer("attention.shared_kv_layers")
        self._caching = _SHARED_FROM.get(values.header.architecture, every - shared)
        first = self._heads[0] if every else 0
        self._head = values.integer("embedding_length") // first if first else 0

    def all(self) -> tuple[LayerShape, ...]:
        """One by one."""
        unused = (LayerShape(),) * (self._every - self._count)
        return (*map(self._layer, range(self._count)), *unused)

    def _layer(self, index: int) -> LayerShape:
        recurrent, values = self._recurrent[index], self._values
        attends = has_attention(
            values.header.architecture, recurrent, self._feed_forward[index]
        )
        caches = attends and index < self._caching
        key, value = self._head_sizes(windowed=self._windows[index] > 0)
        heads = self._heads[index]
        history, state = (0, 0)
        if recurrent:
            history, state = state_sizes(values, self._heads[0], key)
        inner = values.integer("ssm.inner_size") or values.integer("embedding_length")
        width, experts = self._network(index)
        return LayerShape(
            weights=self._weights.layers.get(index, 0),
            heads=heads if attends else 0,
            kv_heads=self._kv_heads[index] if caches else 0,
            key_size=key,
            value_size=value,
            window=self._windows[index],
            history=history,
            state=state,
            inner=inner if recurrent else 0,
            scan_parameters=scan_parameters(values) if recurrent else 0,
            feed_forward=width,
            gated=self._weights.gated(index, self._feed_forward[index]),
            experts=experts,
        )

    def _network(self, index: int) -> tuple[int, int]:
        """Width of the feed-forward network, and how many experts make it up."""
        width, used = self._feed_forward[index], self._used[index]
        if not used or not self._weights.has_experts(index):
            return width, 1
        key = "expert_feed_forward_length"
        return used * self._values.per_layer(key, self._every, width)[index], used

    def _head_sizes(self, *, windowed: bool) -> tuple[int, int]:
        """Values of a head of the keys, and of one of the values."""
        sizes = [self._head] * 2
        for place, name in enumerate(("key_length", "value_length")):
            sizes[place] = self._values.integer(f"attention.{name}", sizes[place])
            if windowed:
                name += "_swa"
                sizes[place] = self._values.integer(f"attention.{name}", sizes[place])
        if self._values.integer("attention.key_length_mla"):
            sizes[1] = 0
        return sizes[0], sizes[1]
