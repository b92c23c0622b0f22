"""
How to load a model.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from llmcore.params.validators import flag, integer


@frozen(kw_only=True)
class ModelParams:
    """
    How to load a model.

    Args:
        gpu_layers: Layers to place on a GPU; ``"auto"`` means as many as fit if the
            build has a GPU and none otherwise. An explicit number on a build without
            a GPU raises `CapabilityError`.

        mmap: Map the file instead of reading it into allocated memory: it is read when
            it is needed, and may be larger than the RAM, which is slow.

        mlock: Pin the weights in RAM, so that they are never swapped out; more than
            this process may lock (``ulimit -l``) raises `ModelLoadError`.

        check_tensors: Validate the tensor data while loading (slow).
    """

    gpu_layers: int | Literal["auto"] = field(
        default="auto", validator=integer(0, 100_000, "auto")
    )
    mmap: bool = field(default=True, validator=flag)
    mlock: bool = field(default=False, validator=flag)
    check_tensors: bool = field(default=False, validator=flag)
