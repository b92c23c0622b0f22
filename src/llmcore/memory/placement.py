"""Which device gets which layer, as llama.cpp places them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

from attrs import frozen

from llmcore.memory.budget import RAM
from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.params import ModelParams
from llmcore.plugins.gpu import gpus_of
from llmcore.values import Device

_SOME_GPU = Device(name="gpu", kind="gpu")
"""Stands for a GPU that is asked for where nobody says what there is."""


@frozen(kw_only=True)
class Placement:
    """
    Where the parts of a model are; its input is always in RAM.

    Attributes:
        layers: The name of a device for each layer.

        output: The device of what comes after them.
    """

    layers: tuple[str, ...]
    output: str

    @property
    def devices(self) -> tuple[str, ...]:
        """Those that compute, the RAM first if it is one of them."""
        names = dict.fromkeys((*self.layers, self.output))
        return tuple(sorted(names, key=lambda name: name != RAM))

    def groups(
        self, layers: Sequence[LayerShape]
    ) -> Iterator[tuple[str, list[tuple[int, LayerShape]]]]:
        """Layers that follow each other on one device, with their numbers."""
        numbered = enumerate(layers)
        for device, group in groupby(numbered, key=lambda item: self.layers[item[0]]):
            yield device, list(group)


def place(
    shape: ModelShape, params: ModelParams, devices: Sequence[Device]
) -> Placement:
    """
    Place the last ``gpu_layers`` of all layers and the output, split by free memory.

    "All" is one more than there are layers: the output is the last one
    (``load_tensors`` in ``src/llama-model.cpp``).
    """
    every, gpus = len(shape.layers) + 1, gpus_of(devices)
    asked: int | str = params.gpu_layers
    if isinstance(asked, str):
        asked = every if gpus else 0
    wanted = min(asked, every)
    gpus = gpus or [_SOME_GPU]
    shares = list(accumulate(gpu.free or 1 for gpu in gpus))
    names = [RAM] * (every - wanted)
    for index in range(wanted):
        gpu = bisect_right(shares, index / wanted * shares[-1])
        names.append(gpus[gpu].name)
    return Placement(layers=tuple(names[:-1]), output=names[-1])
