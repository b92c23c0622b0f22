"""
The bytes in which an engine computes: its largest step, and what comes out of it.
"""

from __future__ import annotations

from functools import lru_cache

from llmcore.memory.arena import Arena, Block
from llmcore.memory.cache import Layout
from llmcore.memory.shape import LayerShape, ModelShape

F16, F32, I64 = 2, 4, 8


def output_size(shape: ModelShape, layout: Layout) -> int:
    """
    Bytes in which results are handed out: the logits of a token of each sequence.

    As the engine has it at first (``output_reserve`` in ``src/llama-context.cpp``); it
    grows when more rows are asked for at once.
    """
    embeddings = shape.embedding if layout.embeddings else 0
    return F32 * layout.sequences * (shape.vocabulary + embeddings)


@lru_cache(maxsize=256)
def compute_size(shape: ModelShape, layout: Layout) -> int:
    """
    Bytes of the buffer in which one device computes a step.

    The engine lays its largest step out before it computes anything: a full micro
    batch over a full cache, with the logits of each token (``sched_reserve`` in
    llama.cpp's ``src/llama-context.cpp``). The same is done here by the sizes alone.
    """
    return _Step(shape, layout).lay_out()


def inputs_size(shape: ModelShape, layout: Layout) -> int:
    """Bytes that stay in RAM when all layers are elsewhere: what a step is given."""
    return _Step(shape, layout).lay_out_inputs()


class _Step:
    """
    The largest step, in the order in which the engine takes and frees its parts.

    That order is the graph of ``src/models/llama.cpp``, ``mamba-base.cpp`` and
    ``bert.cpp``, of the parts in ``src/llama-graph.cpp``; other architectures hold
    about the same. What can be changed in place (norms, sums) takes no room.
    """

    def __init__(self, shape: ModelShape, layout: Layout) -> None:
        self._shape, self._layout, self._arena = shape, layout, Arena()
        self._give = self._arena.give
        self._tokens = layout.tokens
        self._layers = [layer for layer in shape.layers if layer != LayerShape()]
        self._masks: dict[int, list[Block]] = {}
        # of each kind of cache the last layer that uses it
        self._last = {la.window: i for i, la in enumerate(self._layers) if la.heads}

    def _take(self, per_token: int, size: int = F32) -> Block:
        return self._arena.take(self._tokens * per_token * size)

    def lay_out_inputs(self) -> int:
        """The bytes up to the first layer."""
        self._inputs()
        self._take(self._shape.embedding)
        return self._arena.peak

    def lay_out(self) -> int:
        """Take and free everything; the bytes of the whole step."""
        answered = self._inputs()
        x = self._take(self._shape.embedding)
        for index, layer in enumerate(self._layers):
            mixed = self._mixed(layer, index)
            if index == len(self._layers) - 1:  # now only what is to be answered
                mixed = [self._moved(self._shape.embedding, block) for block in mixed]
                x = self._moved(self._shape.embedding, x)
                self._give(answered)
            if mixed:  # and with it the sum of both
                self._give(x)
                [x] = mixed
            if layer.feed_forward:
                x = self._feed_forward(layer, x)
        if self._shape.cached:
            self._take(self._shape.vocabulary)
        return self._arena.peak

    # -- what it is given --------------------------------------------------------------

    def _inputs(self) -> Block:
        """
        Tokens, vectors that might be given in their place, positions, and masks.

        A mask has 16 bits per token and cell with flash attention, else 32; without it
        the values of a token are stored one by one, each with a place of its own.
        There is one for each kind of cache.
        """
        self._take(1)
        self._take(self._shape.embedding)
        self._take(1)
        flash, attending = self._layout.flash, [la for la in self._layers if la.heads]
        places = 1 if flash else max((la.values for la in attending), default=0)
        for layer in attending:
            if layer.window not in self._masks:
                matrices = self._hadamard_sizes(layer)
                inputs = [self._arena.take(size) for size in matrices]
                self._masks[layer.window] = inputs
                if self._shape.cached:
                    inputs += [self._take(1, I64), self._take(places, I64)]
                seen = self._seen(layer)
                inputs.append(self._take(seen, F16 if flash else F32))
        return self._take(1)

    def _seen(self, layer: LayerShape) -> int:
        """Cells, or tokens, that a token may see in a layer."""
        return self._layout.cells_of(layer) if self._shape.cached else self._tokens

    # -- a layer -----------------------------------------------------------------------

    def _mixed(self, layer: LayerShape, index: int) -> list[Block]:
        """What other tokens add to a token, by attention, a state, both or neither."""
        parts = []
        if layer.heads:
            last = self._last[layer.window] == index
            used_up = self._masks[layer.window] if last else []
            parts.append(self._attention(layer, used_up))
        if layer.inner:
            parts.append(self._recurrent(layer))
        self._give(*parts[1:])
        return parts[:1]

    def _attention(self, layer: LayerShape, used_up: list[Block]) -> Block:
        give = self._give
        spread_k, spread_v = self._hadamard_sizes(layer)
        turns = self._shape.rotated
        normed = self._normed()
        q = self._made(layer.heads * layer.key_size, turns, spread_k)
        if self._shape.cached and not any(self._masks):
            v = self._made(layer.values, spread_v)
            k = self._made(layer.keys, turns, spread_k, last_of=normed)
        else:
            k = self._made(layer.keys, turns, spread_k)
            v = self._made(layer.values, spread_v, last_of=normed)
        if self._shape.cached:  # they are read from the cache
            give(k, v)
            k = v = self._take(0)
        if self._layout.flash:
            out = self._fused(layer, q, k, v, used_up)
        else:
            out = self._scored(layer, q, k, v, used_up)
        if spread_v:
            out = self._moved(layer.heads * layer.result_size, out)
        return self._renormed(self._moved(self._shape.embedding, out))

    def _normed(self) -> Block:
        """The input of a part, unless that is taken as it is."""
        return self._take(self._shape.embedding if self._shape.normed_first else 0)

    def _renormed(self, x: Block) -> Block:
        """A sum that is normalised after a part, if that is when it is done."""
        if self._shape.normed_first:
            return x
        return self._moved(self._shape.embedding, x)

    def _moved(self, size: int, *old: Block) -> Block:
        """The result of something that cannot be done in place."""
        block = self._take(size)
        self._give(*old)
        return block

    def _made(self, size: int, *changes: object, last_of: Block | None = None) -> Block:
        """Queries, keys or values, and each change to them, which is a copy."""
        block = self._take(size)
        if last_of is not None:
            self._give(last_of)
        for change in changes:
            if change:
                block = self._moved(size, block)
        return block

    def _hadamard_sizes(self, layer: LayerShape) -> tuple[int, int]:
        """Bytes of the matrices that spread outliers before a cache is quantised."""
        kinds = (self._layout.type_k, self._layout.type_v)
        # of keys the largest power of two that divides a head, of values always 64
        sides = (layer.key_size & -layer.key_size, 64 * (layer.value_size % 64 == 0))
        k, v = (
            side * side * F32
            if self._shape.cached and kind.startswith(("q", "iq")) and side >= 64
            else 0
            for kind, side in zip(kinds, sides, strict=True)
        )
        return k, v

    def _fused(
        self, layer: LayerShape, q: Block, k: Block, v: Block, used_up: list[Block]
    ) -> Block:
        """Flash attention. It takes 16 bits: copies of keys and values that have 32."""
        layout, cached = self._layout, self._shape.cached
        kinds = (layout.type_k, layout.type_v) if cached else ("f32", "f32")
        seen = self._seen(layer) * (layout.sequences if cached else 1)
        copies = []
        sizes = (layer.keys, layer.values)
        for kind, size, block in zip(kinds, sizes, (k, v), strict=True):
            if kind == "f32":
                copies.append(self._arena.take(seen * size * F16))
                self._give(block)
        return self._moved(layer.heads * layer.result_size, q, *copies, *used_up)

    def _scored(
        self, layer: LayerShape, q: Block, k: Block, v: Block, used_up: list[Block]
    ) -> Block:
        """Plain attention: the scores of all heads at once, then what they weigh."""
        take, give = self._take, self._give
        turned = take(0 if self._shape.cached else layer.values)
        give(v)
        scores = take(layer.heads * self._seen(layer))
        give(q, k, *used_up)
        parts = self._moved(layer.heads * layer.result_size, scores, turned)
        return self._moved(layer.heads * layer.result_size, parts)

    def _recurrent(self, layer: LayerShape) -> Block:
        """A convolution over the last tokens, then a scan that carries the state."""
        inner, sequences = layer.inner, self._layout.sequences
        history, state = sequences * layer.history * F32, sequences * layer.state * F32
        width = self._tokens * inner * F32
        before = self._arena.take(history)
        both = self._moved(2 * inner, self._take(self._shape.embedding))  # and a gate
        joined = self._arena.take(width + history)
        self._give(before)
        x = self._moved(inner, joined)
        parameters, steps = self._take(layer.scan_parameters), self._take(inner)
        scanned = self._arena.take(width + state)
        self._give(parameters, steps)
        gate = self._moved(inner, both)
        gated = self._moved(inner, gate, scanned, x)
        return self._moved(self._shape.embedding, gated)

    def _feed_forward(self, layer: LayerShape, x: Block) -> Block:
        """With a gate two products at once, and their own product in a third place."""
        normed = self._normed()
        made = [self._take(layer.feed_forward) for _ in range(1 + layer.gated)]
        self._give(normed)
        if layer.gated:
            made = [self._moved(layer.feed_forward, *made)]
        out = self._moved(self._shape.embedding * layer.experts, *made)
        if layer.experts > 1:
            out = self._moved(self._shape.embedding, out)
        self._give(x)
        return self._renormed(out)
