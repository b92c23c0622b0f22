"""
The model types whose files begin with the magic "ggml".

Such a file does not say what it is: some numbers, the vocabulary, the tensors. Each
type has its own numbers and its own names for the tensors, so only one layout fits.
Derived from the loaders of ctransformers (``models/llms/*.cc``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

Shape = tuple[str, ...]
"""
The fastest dimension first: ``"e"`` is the embedding, ``"v"`` the vocabulary, ``"p"``
the positions, and a digit in front multiplies.
"""


@frozen(kw_only=True)
class Layout:
    """
    One model type.

    Args:
        architecture: As other programs call it.

        kind: As the library calls it.

        numbers: The 32-bit numbers after the magic, in their order.

        tensors: Names and shapes of those outside of the layers.

        layer: The same for a layer, named after ``prefix`` with its number.

        optional: Names of those that a file need not have.

        positions: Name of the table of positions, which is never quantised.

        repeats: Whether the size of the vocabulary stands again before it.

        cache_bytes: Size of an element of the cache.

        scratch: Whether each layer uses the same working memory.

        copies_values: Whether each layer copies all cached values.
    """

    architecture: str
    kind: str
    numbers: tuple[str, ...]
    tensors: Mapping[str, Shape]
    prefix: str
    layer: Mapping[str, Shape]
    optional: frozenset[str] = frozenset()
    positions: str = ""
    repeats: bool = True
    cache_bytes: int = 2
    scratch: bool = True
    copies_values: bool = False

    def shapes(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor with its shape, fastest dimension first."""
        units = {
            "e": sizes["embedding"],
            "v": sizes["vocabulary"],
            "p": sizes["positions"],
        }

        def resolve(shape: Shape) -> tuple[int, ...]:
            return tuple(int(size[:-1] or 1) * units[size[-1]] for size in shape)

        for name, shape in self.tensors.items():
            yield name, resolve(shape)
        for layer in range(sizes["layers"]):
            for name, shape in self.layer.items():
                yield self.prefix.format(layer) + name, resolve(shape)


_COMMON = ("vocabulary", "positions", "embedding", "heads", "layers")

GPT_J = Layout(
    architecture="gptj",
    kind="gptj",
    numbers=(*_COMMON, "rotated", "type"),
    tensors={
        "transformer.wte.weight": ("e", "v"),
        "transformer.ln_f.weight": ("e",),
        "transformer.ln_f.bias": ("e",),
        "lm_head.weight": ("e", "v"),
        "lm_head.bias": ("v",),
    },
    prefix="transformer.h.{}.",
    layer={
        "ln_1.weight": ("e",),
        "ln_1.bias": ("e",),
        "attn.q_proj.weight": ("e", "e"),
        "attn.k_proj.weight": ("e", "e"),
        "attn.v_proj.weight": ("e", "e"),
        "attn.out_proj.weight": ("e", "e"),
        "mlp.fc_in.weight": ("e", "4e"),
        "mlp.fc_in.bias": ("4e",),
        "mlp.fc_out.weight": ("4e", "e"),
        "mlp.fc_out.bias": ("e",),
    },
    scratch=False,
)

GPT_NEOX = Layout(
    architecture="gptneox",
    kind="gptneox",  # and not "dollyv2", which is the same with less working memory
    numbers=(*_COMMON, "rotated", "parallel", "type"),
    tensors={
        "gpt_neox.embed_in.weight": ("e", "v"),
        "gpt_neox.final_layer_norm.weight": ("e",),
        "gpt_neox.final_layer_norm.bias": ("e",),
        "embed_out.weight": ("e", "v"),
    },
    prefix="gpt_neox.layers.{}.",
    layer={
        "input_layernorm.weight": ("e",),
        "input_layernorm.bias": ("e",),
        "attention.query_key_value.weight": ("e", "3e"),
        "attention.query_key_value.bias": ("3e",),
        "attention.dense.weight": ("e", "e"),
        "attention.dense.bias": ("e",),
        "post_attention_layernorm.weight": ("e",),
        "post_attention_layernorm.bias": ("e",),
        "mlp.dense_h_to_4h.weight": ("e", "4e"),
        "mlp.dense_h_to_4h.bias": ("4e",),
        "mlp.dense_4h_to_h.weight": ("4e", "e"),
        "mlp.dense_4h_to_h.bias": ("e",),
    },
    repeats=False,
)

GPT_2 = Layout(
    architecture="gpt2",
    kind="starcoder",  # and not "gpt2", which is the same with less working memory
    numbers=(*_COMMON, "type"),
    tensors={
        "model/wte": ("e", "v"),
        "model/wpe": ("e", "p"),
        "model/lm_head": ("e", "v"),
        "model/ln_f/g": ("e",),
        "model/ln_f/b": ("e",),
    },
    prefix="model/h{}/",
    layer={
        "ln_1/g": ("e",),
        "ln_1/b": ("e",),
        "ln_2/g": ("e",),
        "ln_2/b": ("e",),
        "attn/c_attn/w": ("e", "3e"),
        "attn/c_attn/b": ("3e",),
        "attn/c_proj/w": ("e", "e"),
        "attn/c_proj/b": ("e",),
        "mlp/c_fc/w": ("e", "4e"),
        "mlp/c_fc/b": ("4e",),
        "mlp/c_proj/w": ("4e", "e"),
        "mlp/c_proj/b": ("e",),
    },
    optional=frozenset({"model/lm_head"}),
    positions="model/wpe",
    cache_bytes=4,
    copies_values=True,
)

LAYOUTS = (GPT_J, GPT_NEOX, GPT_2)
