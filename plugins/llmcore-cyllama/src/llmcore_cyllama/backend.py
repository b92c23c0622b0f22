"""The engine: its devices, and how it loads a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llmcore.backends.llama_cpp import logs
from llmcore.backends.llama_cpp.loading import Loading
from llmcore.errors import ForkError, ModelLoadError
from llmcore.spi import Backend, Progress
from llmcore.values import Device, ModelParams
from llmcore_cyllama import engine
from llmcore_cyllama.devices import devices
from llmcore_cyllama.engine import C
from llmcore_cyllama.model import CyllamaModel
from llmcore_cyllama.params import model_params


class CyllamaBackend(Backend):
    """One user of the engine, which itself lives as long as the process."""

    def __init__(self) -> None:
        if engine.start() != os.getpid():
            # The pool of OpenMP threads was not copied: the first decode would hang.
            raise ForkError(
                "llama.cpp was started before os.fork() and its threads are not in the "
                "child: start the child with the 'spawn' method, or fork earlier"
            )

    def devices(self) -> Sequence[Device]:
        """What ggml was built for and found."""
        return devices()

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> CyllamaModel:
        """Load a GGUF file, or the first of its parts."""
        if path is None:
            raise ModelLoadError(path, "this backend needs a GGUF file")
        loading = Loading(path, progress)
        loading.report(0.0)
        loading.stop_if_asked()
        native_params = model_params(params, loading.receive)
        with logs.captured() as lines:
            try:
                native = C.LlamaModel(_name(path), native_params, verbose=False)
            except (ValueError, OSError) as error:
                loading.stop_if_asked()
                raise ModelLoadError(path, _reason(lines, error)) from error
        try:
            loading.stop_if_asked()
            model = CyllamaModel(native, path)
            loading.report(1.0)
            loading.stop_if_asked()
        except BaseException:
            native.close()
            raise
        return model

    def close(self) -> None:
        """Nothing here is freed: the engine belongs to the whole process."""


def _name(path: Path) -> str:
    """The path as text, which is all that cyllama takes."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        reason = "cyllama opens only names that are UTF-8: rename it"
        raise ModelLoadError(path, reason) from error
    return name


def _reason(lines: list[logs.Line], error: Exception) -> str:
    """The engine's own words, or those of cyllama's checks before it."""
    failures = [line for line in lines if line.level == logs.ERROR]
    return logs.reason(failures) if failures else str(error)
