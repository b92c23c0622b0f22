"""Reads numbers, texts and the table of tensors of files from before GGUF."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Set

from attrs import frozen

from llmcore.gguf_header import GGML_TYPES, InvalidFileError

FILE_TYPES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1"},
    **{10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"},
}
"""The type of most tensors, by the number in a header (``enum ggml_ftype``)."""

_LONGEST_NAME = 63
_LONGEST_TOKEN = 2**16
_TYPES = (0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14)
"""Numbers of the tensor types that the library computes with."""
_BLOCKS = {name: (block, size) for name, block, size in GGML_TYPES.values()}


@frozen(kw_only=True)
class Tensor:
    """A tensor of one or two dimensions, the fastest first; ``size`` in bytes."""

    shape: tuple[int, ...]
    type: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        block, size = _BLOCKS[self.type]
        return self.elements // block * size


Tensors = dict[str, Tensor]


class Reader:
    """A position in untrusted bytes that never moves past their end."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self.position = position

    @property
    def at_end(self) -> bool:
        return self.position == len(self._data)

    def claim(self, size: int) -> int:
        """Move over some bytes; returns where they start."""
        start = self.position
        if size > len(self._data) - start:
            raise InvalidFileError("truncated or damaged: download it again")
        self.position = start + size
        return start

    def numbers(self, count: int) -> tuple[int, ...]:
        """Unsigned numbers of 32 bits."""
        start = self.claim(4 * count)
        return struct.unpack_from(f"<{count}I", self._data, start)

    def text(self) -> bytes:
        """The text of a token, after its length."""
        (length,) = self.numbers(1)
        if length > _LONGEST_TOKEN:
            raise InvalidFileError(f"a token of {length} bytes: absurd")
        return self.bytes(length)

    def bytes(self, length: int) -> bytes:
        start = self.claim(length)
        return self._data[start : start + length]


def read_tensors(reader: Reader, *, alignment: int = 1) -> Tensors:
    """
    All tensors up to the end of the file, which must lie in it as a whole.

    Args:
        alignment: Their data start at multiples of that many bytes.

    Raises:
        InvalidFileError: With the reason in words.
    """
    tensors: Tensors = {}
    while not reader.at_end:
        dimensions, length, kind = reader.numbers(3)
        if dimensions not in (1, 2) or not 1 <= length <= _LONGEST_NAME:
            raise InvalidFileError(
                f"tensor {len(tensors)} has {dimensions} dimensions and a name of "
                f"{length} bytes: absurd"
            )
        shape = reader.numbers(dimensions)
        name = reader.bytes(length).decode(errors="replace")
        if name in tensors or kind not in _TYPES:
            raise InvalidFileError(
                f"the tensor {name!r} occurs twice or has the unknown type {kind}"
            )
        tensors[name] = Tensor(shape=shape, type=GGML_TYPES[kind][0])
        reader.claim(-reader.position % alignment)
        reader.claim(tensors[name].size)
    return tensors


def check_names(expected: Set[str], found: Set[str], optional: Set[str]) -> None:
    """
    Raises:
        InvalidFileError: A tensor is missing, or there is one that nobody knows.
    """
    for name in sorted((expected ^ found) - optional):
        what = "lacks the" if name in expected else "has the unknown"
        raise InvalidFileError(f"it {what} tensor {name!r}")


def check_rows(name: str, tensor: Tensor) -> None:
    """
    Raises:
        InvalidFileError: Its rows do not divide into blocks of its type.
    """
    block, _ = _BLOCKS[tensor.type]
    if tensor.shape[0] % block or 0 in tensor.shape:
        raise InvalidFileError(
            f"the tensor {name!r} has rows that are no multiple of {block} "
            f"({tensor.type})"
        )
