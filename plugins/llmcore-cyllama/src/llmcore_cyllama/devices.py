"""The processors that a build of cyllama can use."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from llmcore.values import Device
from llmcore_cyllama.engine import C

KINDS = {"CPU": "cpu", "GPU": "gpu", "iGPU": "integrated-gpu"}
APIS = {
    "CUDA": "cuda",
    "MTL": "metal",
    "ROCm": "rocm",
    "SYCL": "sycl",
    "Vulkan": "vulkan",
}
"""By the name of a device without its number."""


def devices() -> Sequence[Device]:
    """What ggml was built for and found, with memory as it is now."""
    found = C.ggml_backend_dev_info()
    return [_device(index, facts) for index, facts in enumerate(found)]


def _device(index: int, facts: dict[str, str]) -> Device:
    kind = KINDS.get(facts["type"], "accelerator")
    if kind == "cpu":  # of which the engine says that all of it is free
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
    else:
        free, total = _memory(index)
    return Device(
        name=facts["name"],
        kind=kind,
        description=facts["description"],
        total=total,
        free=free,
        api=APIS.get(facts["name"].rstrip("0123456789"), ""),
    )


def _memory(index: int) -> tuple[int, int]:
    """
    Free and total bytes of a device, which cyllama itself does not tell.

    Builds for a GPU carry ggml as libraries of their own, so that it can be asked;
    where it is a part of the extension both are 0.
    """
    library = _ggml()
    if library is None:
        return 0, 0
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    device = ctypes.c_void_p(library.ggml_backend_dev_get(ctypes.c_size_t(index)))
    library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


@functools.cache
def _ggml() -> Any:
    """The registry of devices, which is loaded already; None if it is not to be had."""
    site = Path(C.__file__).parents[2]
    for path in site.glob("cyllama*.libs/libggml-*.so*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "ggml_backend_dev_get"):
            return library
    return None
