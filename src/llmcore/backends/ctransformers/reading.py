"""Reads a model file of any kind that the library knows, and refuses all others."""

from __future__ import annotations

import mmap
from pathlib import Path

from llmcore.backends.ctransformers import early_gguf, legacy
from llmcore.backends.ctransformers.model_file import ModelFile
from llmcore.errors import ModelLoadError
from llmcore.gguf_header import MAGIC, InvalidFileError


def read_model_file(path: Path) -> ModelFile:
    """
    Read and check a file: whatever the library trusts, or ends the process for.

    Raises:
        ModelLoadError: With the reason in words. Any thread.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            read = early_gguf.read if data[: len(MAGIC)] == MAGIC else legacy.read
            return read(data, path)
    except InvalidFileError as invalid:
        raise ModelLoadError(path, str(invalid)) from None
    except (OSError, ValueError) as error:  # a directory, an empty file
        raise ModelLoadError(path, f"it cannot be read: {error}") from error
