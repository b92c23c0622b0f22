"""The bytes of a model's tensors, by where in the network they belong."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmcore.gguf_header import GGUFTensor

_EMBEDDINGS = "token_embd.weight"


class Weights:
    """
    Sums over the tensors of a header.

    Attributes:
        input: Bytes of what is neither in a layer nor after the layers.

        layers: Bytes of each layer by its number.

        output: Bytes of what comes after the layers.
    """

    def __init__(self, tensors: Iterable[GGUFTensor]) -> None:
        self.input = self.output = 0
        self.layers: dict[int, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._embeddings = 0
        for tensor in tensors:
            self._shapes[tensor.name] = tensor.shape
            if found := re.match(r"blk\.(\d{1,4})\.", tensor.name):
                layer = int(found[1])
                self.layers[layer] = self.layers.get(layer, 0) + tensor.size
            elif tensor.name.startswith(("output", "cls")):
                self.output += tensor.size
            else:
                self.input += tensor.size
            if tensor.name == _EMBEDDINGS:
                self._embeddings = tensor.size

    @property
    def tied(self) -> int:
        """Bytes of the matrix that is both first and last, 0 if there are two."""
        return 0 if "output.weight" in self._shapes else self._embeddings

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the first matrix has rows for, 0 if it is not there."""
        shape = self._shapes.get(_EMBEDDINGS, ())
        return shape[1] if len(shape) > 1 else 0

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._shapes

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts; True if its tensors are not known."""
        names = self._of_network(layer)
        return not names or any("_exps" in name for name in names)

    def gated(self, layer: int, width: int) -> bool:
        """Whether a feed-forward network of that width has a gate; True if unknown."""
        names = self._of_network(layer)
        up = self._shapes.get(f"blk.{layer}.ffn_up.weight", (0, 0))
        both_in_one = len(up) > 1 and up[1] > width
        return not names or both_in_one or any("gate" in name for name in names)

    def _of_network(self, layer: int) -> list[str]:
        return [name for name in self._shapes if name.startswith(f"blk.{layer}.ffn_")]
