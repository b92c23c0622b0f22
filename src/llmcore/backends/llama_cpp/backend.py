"""The engine: its devices, and how it loads a model."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcore.backends.llama_cpp import logs, native
from llmcore.backends.llama_cpp.loading import Loading
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.backends.llama_cpp.native import C
from llmcore.backends.llama_cpp.native_params import model_params
from llmcore.backends.llama_cpp.rules import load_error
from llmcore.errors import ForkError, ModelLoadError
from llmcore.spi import Backend, Progress
from llmcore.values import Device, ModelParams

DEVICE_KINDS = {0: "cpu", 1: "gpu", 2: "integrated-gpu", 3: "accelerator"}


class LlamaCppBackend(Backend):
    """One user of the engine, which itself lives as long as the process."""

    def __init__(self) -> None:
        if native.start() != os.getpid():
            # The pool of OpenMP threads was not copied: the first decode would hang.
            raise ForkError(
                "llama.cpp was started before os.fork() and its threads are not in the "
                "child: start the child with the 'spawn' method, or fork earlier"
            )

    def devices(self) -> Sequence[Device]:
        """What ggml was built for and found, with memory as it is now."""
        count = native.ggml("ggml_backend_dev_count", ctypes.c_size_t)
        get = native.ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        return [_device(get(index)) for index in range(count())]

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> LlamaCppModel:
        """Load a GGUF file, or the first of its parts."""
        if path is None:
            raise ModelLoadError(path, "this backend needs a GGUF file")
        loading = Loading(path, progress)
        loading.report(0.0)
        loading.stop_if_asked()
        callback = C.llama_progress_callback(loading.receive)
        with logs.captured() as lines:
            handle = C.llama_model_load_from_file(
                os.fsencode(path), model_params(params, callback)
            )
        try:
            loading.stop_if_asked()
            if not handle:
                raise load_error(path, logs.reason(lines))
            model = LlamaCppModel(handle, path)
            loading.report(1.0)
            loading.stop_if_asked()
        except BaseException:
            if handle:
                C.llama_model_free(handle)
            raise
        return model

    def close(self) -> None:
        """Nothing here is freed: the engine belongs to the whole process."""


def _device(handle: int) -> Device:
    def ask(what: str, result: Any) -> Any:
        name = f"ggml_backend_dev_{what}"
        return native.ggml(name, result, ctypes.c_void_p)(handle)

    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    size_p = ctypes.POINTER(ctypes.c_size_t)
    native.ggml("ggml_backend_dev_memory", None, ctypes.c_void_p, size_p, size_p)(
        handle, ctypes.byref(free), ctypes.byref(total)
    )
    return Device(
        name=ask("name", ctypes.c_char_p).decode(),
        kind=DEVICE_KINDS.get(ask("type", ctypes.c_int), "accelerator"),
        description=ask("description", ctypes.c_char_p).decode(errors="replace"),
        total=total.value,
        free=free.value,
        api=_api(ask("backend_reg", ctypes.c_void_p)),
    )


def _api(registry: int) -> str:
    """What ggml calls the code that drives a device: CUDA, ROCm, Vulkan, MTL, CPU."""
    name = native.ggml("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    text: str = name(registry).decode().lower()
    return {"mtl": "metal"}.get(text, text)
