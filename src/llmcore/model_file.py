"""
Checks a model file before any engine sees it.

Engines trust the file: a damaged header can abort or corrupt the process. Here every
length is bounded by the bytes that are left and every number that an engine indexes
or divides by is checked, in plain Python, without reading the tensor data.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmcore.errors import ModelLoadError
from llmcore.gguf_header import (
    MAGIC,
    GGUFArray,
    GGUFHeader,
    GGUFTensor,
    InvalidFileError,
    Metadata,
    ParsedGGUF,
    Value,
    Values,
    parse_gguf,
)
from llmcore.gguf_rules import check_model, integer

__all__ = [
    "GGUFArray",
    "GGUFHeader",
    "GGUFTensor",
    "check_model_file",
    "parse_gguf_part",
    "read_gguf_header",
    "whole_header",
]


def check_model_file(
    path: str | os.PathLike[str], formats: tuple[str, ...] = ("gguf",)
) -> GGUFHeader | None:
    """
    Check a model file; never crashes, never allocates by a number in the file.

    Args:
        path: The file; of a split GGUF model, the first part.

        formats: What the engine reads. Only ``"gguf"`` has a header check; a file
            that is something else is left to an engine that also reads other formats.

    Returns:
        The header of a GGUF file, or None if the file is left to the engine.

    Raises:
        ModelLoadError: With the reason in words. Any thread.
    """
    path = Path(path)
    if set(formats) <= {"gguf"}:
        return read_gguf_header(path)
    if not os.path.exists(path):  # False also for names that no file can have
        raise ModelLoadError(path, "there is no such file")
    if path.is_dir() or "gguf" not in formats:
        return None
    with _opened(path) as data:
        is_gguf = data[:4] == MAGIC
    return read_gguf_header(path) if is_gguf else None


def read_gguf_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """
    Read and check the header of a GGUF file, and of the other parts of a split one.

    Raises:
        ModelLoadError: With the reason in words. Any thread.
    """
    path = Path(path)
    parsed = _parse(path)
    with _reported(path):
        others = [_parse(part) for part in _other_parts(path, parsed.values)]
        return whole_header([parsed, *others])


def parse_gguf_part(data: mmap.mmap | bytes, size: int | None = None) -> ParsedGGUF:
    """
    Parse the header of one GGUF file, after a look at whether it is one.

    Args:
        data: The whole file, or its beginning.

        size: Bytes of the whole file; None if it is all here.

    Raises:
        IncompleteHeaderError: The beginning is too short; try again with more of it.

        InvalidFileError: With the reason in words.
    """
    _check_magic(data[:512])
    return parse_gguf(data, size)


def whole_header(parts: Sequence[ParsedGGUF]) -> GGUFHeader:
    """
    The checked header of a model: that of its first file, with the tensors of all.

    Raises:
        InvalidFileError: With the reason in words.
    """
    first = parts[0]
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    return GGUFHeader(
        version=first.version,
        architecture=check_model(first.values, tensors),
        tensor_count=len(tensors),
        data_offset=first.data_offset,
        metadata={key: _summary(value) for key, value in first.values.items()},
        tensors=tensors,
    )


_SUMMARISE_ABOVE, _SUMMARISE_NUMBERS_ABOVE = 64, 1024
"""Elements of an array; numbers are kept longer, as there is one for each layer."""

# -- opening -------------------------------------------------------------------------

_OTHER_FILES: tuple[tuple[str, str], ...] = (
    (
        r"version https://git-lfs",
        "a git-lfs pointer, not the model: run 'git lfs pull'",
    ),
    (
        r"\s*<(!doctype|html|head|body|\?xml|!--)",
        "this is a web page, the download failed: download the file again",
    ),
    (r"PK\x03\x04.{0,200}data\.pkl", "a PyTorch checkpoint: convert it to GGUF"),
    (r"PK\x03\x04", "a zip archive: unpack it, or convert the checkpoint to GGUF"),
    (r"\x80[\x02-\x05]", "a Python pickle (PyTorch checkpoint): convert it to GGUF"),
    (r".{8}\{\s*\"", "a safetensors file: convert it to GGUF"),
    (r"lmgg|fmgg|tjgg|algg", "a GGML file from before GGUF: convert it to GGUF"),
    (
        r"\x1f\x8b|\x28\xb5\x2f\xfd|\xfd7zXZ|BZh|7z\xbc\xaf",
        "a compressed file: decompress it",
    ),
    (r"[\t\n\r\x20-\x7e]{16}|[\t\n\r\x20-\x7e]*\Z", "a text file, not a model"),
)
"""First bytes (as Latin-1) of files mistaken for models, and what to say."""


def _opened(path: Path) -> mmap.mmap:
    try:
        # The check must come first: opening a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise ModelLoadError(path, f"{kind}: pass the path of a model file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelLoadError(path, "the file is empty: download it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise ModelLoadError(path, "there is no such file") from error
    except PermissionError as error:
        raise ModelLoadError(path, "no permission to read it") from error
    except OSError as error:
        raise ModelLoadError(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise ModelLoadError(path, f"not a valid path: {error}") from error


def _check_magic(first: bytes) -> None:
    if first.startswith(MAGIC):
        return
    for pattern, reason in _OTHER_FILES:
        if re.match(pattern, first.decode("latin-1"), re.DOTALL | re.IGNORECASE):
            raise InvalidFileError(reason)
    raise InvalidFileError(
        f"not a GGUF file: it starts with {first[:4]!r}, not {MAGIC!r}"
    )


def _parse(path: Path) -> ParsedGGUF:
    with _opened(path) as data, _reported(path):
        return parse_gguf_part(data)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except InvalidFileError as invalid:
        raise ModelLoadError(path, str(invalid)) from None


def _other_parts(path: Path, values: Values) -> Iterator[Path]:
    """The other files of a split model, which the engine opens by itself."""
    count = integer(values, "split.count", 0, 65_535) or 1
    if count == 1:
        return
    first = f"-00001-of-{count:05}.gguf"
    if not path.name.endswith(first):
        raise InvalidFileError(
            f"a part of a model split in {count}: pass the first part, *{first}"
        )
    for number in range(2, count + 1):
        name = path.name.removesuffix(first) + f"-{number:05}-of-{count:05}.gguf"
        yield path.with_name(name)


def _summary(value: Value) -> Metadata:
    if isinstance(value.value, bytes):
        return value.value.decode(errors="replace")
    if not isinstance(value.value, tuple):
        return value.value
    most = _SUMMARISE_ABOVE if value.type == "string" else _SUMMARISE_NUMBERS_ABOVE
    if len(value.value) > most:
        return GGUFArray(type=value.type, count=len(value.value))
    return tuple(
        item.decode(errors="replace") if isinstance(item, bytes) else item
        for item in value.value
    )
