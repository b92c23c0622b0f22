"""The engine: its one device, and how it loads a model."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmcore.backends.reference import gguf_file
from llmcore.backends.reference.gguf_file import (
    InvalidModelError,
    Settings,
    Weights,
)
from llmcore.backends.reference.model import ReferenceModel
from llmcore.errors import (
    CapabilityError,
    ModelLoadError,
    OperationCancelledError,
)
from llmcore.spi import Backend, Progress
from llmcore.values import Device, ModelParams


class ReferenceBackend(Backend):
    """Holds nothing of its own; lives until `close`."""

    def devices(self) -> Sequence[Device]:
        """The CPU; its memory is 0 where the system does not say."""
        total = free = 0
        with contextlib.suppress(AttributeError, ValueError, OSError):
            page = os.sysconf("SC_PAGE_SIZE")
            total = page * os.sysconf("SC_PHYS_PAGES")
            free = page * os.sysconf("SC_AVPHYS_PAGES")
        about = f"NumPy {np.__version__} on {platform.machine()}"
        return [
            Device(name="CPU", kind="cpu", description=about, total=total, free=free)
        ]

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> ReferenceModel:
        """Load a GGUF file of one part; all weights become 32-bit floats."""
        if path is None:
            raise ModelLoadError(path, "this backend needs a GGUF file")
        _check(params)

        def report(share: float) -> None:
            if not progress(share):
                raise OperationCancelledError(
                    f"loading {str(path)!r} was cancelled at {share:.0%}"
                )

        report(0.0)
        try:
            settings, weights = gguf_file.read(path, report, check=params.check_tensors)
            model = _built(path, settings, weights)
        except InvalidModelError as error:
            raise ModelLoadError(path, str(error)) from error.__cause__
        report(1.0)
        return model

    def close(self) -> None:
        """Nothing is left to free."""


def _check(params: ModelParams) -> None:
    if params.gpu_layers not in ("auto", 0):
        raise CapabilityError(
            f"gpu_layers={params.gpu_layers} but the reference backend runs on the "
            "CPU only: use 0 or 'auto'"
        )
    if params.mlock:
        raise CapabilityError(
            "mlock=True but the reference backend cannot pin weights: use mlock=False"
        )


def _built(path: Path, settings: Settings, weights: Weights) -> ReferenceModel:
    try:
        with np.errstate(all="ignore"):  # of numbers that make no sense
            return ReferenceModel(path, settings, weights)
    except InvalidModelError:
        raise
    except Exception as error:  # such as a division by a number in the file
        raise InvalidModelError(f"it makes no sense: {error!r}") from error
