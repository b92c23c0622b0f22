"""The engine: the processor, and how it loads a model."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from llmcore.backends.ctransformers import native
from llmcore.backends.ctransformers.model import CtransformersModel
from llmcore.backends.ctransformers.reading import read_model_file
from llmcore.errors import (
    CapabilityError,
    ModelLoadError,
    OperationCancelledError,
    ParameterError,
)
from llmcore.spi import Backend, Progress
from llmcore.values import Device, ModelParams


class CtransformersBackend(Backend):
    """One user of the library, which itself lives as long as the process."""

    def __init__(self) -> None:
        native.library()  # fails here, and not at the first load

    def devices(self) -> Sequence[Device]:
        """The processor; its memory where the system tells."""
        total, free = (_pages(f"SC_{which}_PAGES") for which in ("PHYS", "AVPHYS"))
        return [
            Device(
                name="CPU",
                kind="cpu",
                description=platform.processor() or platform.machine(),
                total=total,
                free=free,
            )
        ]

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> CtransformersModel:
        """
        Check a file and load it; its model type is found out, see `legacy`.

        The library tells nothing of its progress, and cannot be stopped.
        """
        if path is None:
            raise ModelLoadError(path, "this backend needs a model file")
        _check_params(params)
        _report(path, progress, 0.0)
        model = CtransformersModel(path, read_model_file(path), mapped=params.mmap)
        try:
            _report(path, progress, 1.0)
        except BaseException:
            model.close()
            raise
        return model

    def close(self) -> None:
        """Nothing here is freed: the library belongs to the whole process."""


def _check_params(params: ModelParams) -> None:
    if params.gpu_layers not in ("auto", 0):
        raise CapabilityError(
            f"gpu_layers={params.gpu_layers} but this backend computes on the CPU "
            "only: use 0 or 'auto', or the llama_cpp backend"
        )
    for field in ("mlock", "check_tensors"):
        if getattr(params, field):
            raise ParameterError(f"{field} must be False: ctransformers has it not")


def _report(path: Path, progress: Progress, share: float) -> None:
    if not progress(share):
        raise OperationCancelledError(
            f"loading {str(path)!r} was cancelled at {share:.0%}"
        )


def _pages(name: str) -> int:
    """Bytes by the name of a number of pages; 0 where the system has no such name."""
    if name not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
