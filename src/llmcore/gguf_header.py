"""
Reads the header of a GGUF file: the format alone, no meaning of any key.

Every length is bounded by the bytes that are left, no list is allocated by a number
in the file, and the tensor data is not read.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from attrs import evolve, frozen

__all__ = [
    "GGML_TYPES",
    "MAGIC",
    "GGUFArray",
    "GGUFHeader",
    "GGUFTensor",
    "IncompleteHeaderError",
    "InvalidFileError",
    "Metadata",
    "ParsedGGUF",
    "Value",
    "Values",
    "parse_gguf",
]

GGML_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Name, elements per block and bytes per block of each tensor type, by its number."""


@frozen(kw_only=True)
class GGUFTensor:
    """
    Where one tensor lies in the file.

    ``shape`` has the fastest dimension first, as in the file; ``offset`` counts bytes
    from the start of the file; ``size`` is in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@frozen(kw_only=True)
class GGUFArray:
    """A metadata array too long to keep: its element type and its length."""

    type: str
    count: int


Scalar = int | float | bool | str
Metadata = Scalar | tuple[Scalar, ...] | GGUFArray


@frozen(kw_only=True)
class GGUFHeader:
    """
    What the header of a valid GGUF file says.

    ``metadata`` holds scalars, strings, and arrays as tuples; arrays of more than 64
    elements are summarised as `GGUFArray`. ``data_offset`` is where the tensor data
    starts, in bytes.
    """

    version: int
    architecture: str
    tensor_count: int
    data_offset: int
    metadata: Mapping[str, Metadata]
    tensors: tuple[GGUFTensor, ...]


class InvalidFileError(Exception):
    """What is wrong with the file, in words; becomes a `ModelLoadError`."""


class IncompleteHeaderError(InvalidFileError):
    """The header goes on behind the bytes that are here, but inside the file."""


# -- parsing -------------------------------------------------------------------------

MAGIC = b"GGUF"

_SCALARS = {
    0: ("u8", "<B"),
    1: ("i8", "<b"),
    2: ("u16", "<H"),
    3: ("i16", "<h"),
    4: ("u32", "<I"),
    5: ("i32", "<i"),
    6: ("f32", "<f"),
    7: ("bool", "<?"),
    10: ("u64", "<Q"),
    11: ("i64", "<q"),
    12: ("f64", "<d"),
}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32  # the default of the format, and what engines assert
_MAX_KEY_LENGTH = 65_535
_MAX_STRING_LENGTH = 16 * 2**20
_MAX_ENTRIES = 65_536  # engines search these lists linearly for each new entry
_MAX_ELEMENTS = 2**23  # of all arrays together, six times the largest vocabulary known
_MAX_DIMENSIONS = 4
_MAX_NAME_LENGTH = 63


class Value(NamedTuple):
    """One metadata value: strings are `bytes`, arrays are tuples of ``type``."""

    type: str
    value: int | float | bool | bytes | tuple[int | float | bool | bytes, ...]

    @property
    def is_array(self) -> bool:
        return isinstance(self.value, tuple)


Values = Mapping[str, Value]


class ParsedGGUF(NamedTuple):
    """All of a header, with nothing summarised."""

    version: int
    data_offset: int
    values: Values
    tensors: tuple[GGUFTensor, ...]


class _Cursor:
    """A position in untrusted bytes that never moves past their end."""

    def __init__(self, data: mmap.mmap | bytes, size: int) -> None:
        self.data = data
        self.end = size
        self.position = 0
        self.what = "the header"
        self.elements_left = _MAX_ELEMENTS

    def claim(self, count: int, size: int = 1) -> int:
        """Move over ``count * size`` bytes; returns where they start."""
        start = self.position
        if count * size > self.end - start:
            raise InvalidFileError(
                f"truncated or damaged: {self.what} needs {count * size} bytes "
                f"and {self.end - start} are left: download it again"
            )
        self.position = start + count * size
        if self.position > len(self.data):
            raise self.cut_off()
        return start

    def cut_off(self) -> InvalidFileError:
        kind = IncompleteHeaderError if len(self.data) < self.end else InvalidFileError
        return kind(f"truncated or damaged: {self.what} is cut off")

    def number(self, code: str) -> int:
        start = self.claim(struct.calcsize(code))
        return int(struct.unpack_from(code, self.data, start)[0])

    def text(self, longest: int) -> bytes:
        length = self.number("<Q")
        if length > longest:
            raise InvalidFileError(
                f"{self.what} has a string of {length} bytes, more than {longest}"
            )
        start = self.claim(length)
        return self.data[start : start + length]

    def name(self, longest: int) -> str:
        raw = self.text(longest)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise InvalidFileError(f"the name of {self.what} is not UTF-8") from None
        if not name or "\0" in name:
            raise InvalidFileError(f"the name of {self.what} is empty or has a NUL")
        return name

    def texts(self, count: int) -> Iterator[bytes]:
        # The one hot loop: 100 000 strings and more, so no method calls in it.
        self.claim(count, 8)
        position = self.position - count * 8
        data, end = self.data, len(self.data)
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = position + 8
            if start > end or (position := start + length_at(data, start - 8)[0]) > end:
                raise self.cut_off()
            yield data[start:position]
        self.position = position

    def value(self) -> Value:
        kind = self.number("<I")
        if kind == _ARRAY:
            return self.array()
        if kind == _STRING:
            return Value("string", self.text(_MAX_STRING_LENGTH))
        name, code = self.scalar(kind)
        start = self.claim(struct.calcsize(code))
        return Value(name, struct.unpack_from(code, self.data, start)[0])

    def scalar(self, kind: int) -> tuple[str, str]:
        if kind == _ARRAY:
            raise InvalidFileError(f"{self.what} is an array of arrays: not supported")
        if kind not in _SCALARS:
            raise InvalidFileError(f"{self.what} has the unknown value type {kind}")
        return _SCALARS[kind]

    def array(self) -> Value:
        kind, count = self.number("<I"), self.number("<Q")
        if count > self.elements_left:
            raise InvalidFileError(f"{self.what} claims {count} elements: absurd")
        self.elements_left -= count
        if kind == _STRING:
            return Value("string", tuple(self.texts(count)))
        name, code = self.scalar(kind)
        start = self.claim(count, struct.calcsize(code))
        many = f"<{count}{code[1]}"
        return Value(name, struct.unpack_from(many, self.data, start))


def parse_gguf(data: mmap.mmap | bytes, size: int | None = None) -> ParsedGGUF:
    """
    Parse and check the header of a GGUF file.

    Args:
        data: The whole file, or its beginning.

        size: Bytes of the whole file; None if it is all here.

    Raises:
        IncompleteHeaderError: The beginning is too short; try again with more of it.

        InvalidFileError: With the reason in words.
    """
    cursor = _Cursor(data, len(data) if size is None else size)
    cursor.claim(len(MAGIC))
    version = _version(cursor.number("<I"))
    tensor_count = _entries(cursor.number("<Q"), "tensors")
    value_count = _entries(cursor.number("<Q"), "metadata entries")
    values = _parse_values(cursor, value_count)
    alignment = _alignment(values)
    tensors = list(_parse_tensors(cursor, tensor_count))
    data_offset = -(-cursor.position // alignment) * alignment
    return ParsedGGUF(
        version=version,
        data_offset=data_offset,
        values=values,
        tensors=_place(tensors, data_offset, alignment, cursor.end),
    )


def _version(version: int) -> int:
    if version & 0xFFFF == 0 and version:
        raise InvalidFileError("a big-endian GGUF file: get the little-endian one")
    if version not in (2, 3):
        raise InvalidFileError(f"GGUF version {version}: only 2 and 3 are supported")
    return version


def _entries(count: int, what: str) -> int:
    if count > _MAX_ENTRIES:
        raise InvalidFileError(
            f"claims {count} {what}, more than {_MAX_ENTRIES}: absurd"
        )
    return count


def _parse_values(cursor: _Cursor, count: int) -> Values:
    values: dict[str, Value] = {}
    for index in range(count):
        cursor.what = f"metadata entry {index}"
        key = cursor.name(_MAX_KEY_LENGTH)
        if key in values:
            raise InvalidFileError(f"the metadata key {key!r} occurs twice")
        cursor.what = f"the metadata value {key!r}"
        values[key] = cursor.value()
    return values


def _alignment(values: Values) -> int:
    given = values.get("general.alignment", Value("u32", _ALIGNMENT))
    alignment = given.value
    if given.type != "u32" or not isinstance(alignment, int):
        raise InvalidFileError(f"general.alignment must be a u32, not {given.type}")
    if alignment.bit_count() != 1:
        raise InvalidFileError(f"general.alignment {alignment} is not a power of two")
    if alignment < _ALIGNMENT:
        raise InvalidFileError(f"general.alignment {alignment} is below {_ALIGNMENT}")
    return alignment


def _parse_tensors(cursor: _Cursor, count: int) -> Iterator[GGUFTensor]:
    seen: set[str] = set()
    for index in range(count):
        cursor.what = f"tensor {index}"
        name = cursor.name(_MAX_NAME_LENGTH)
        if name in seen:
            raise InvalidFileError(f"the tensor name {name!r} occurs twice")
        seen.add(name)
        cursor.what = f"the tensor {name!r}"
        dimensions = cursor.number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise InvalidFileError(
                f"{cursor.what} has {dimensions} dimensions, at most 4"
            )
        shape = tuple(cursor.number("<q") for _ in range(dimensions))
        kind = cursor.number("<I")
        size = _size(cursor.what, shape, kind)
        yield GGUFTensor(
            name=name,
            shape=shape,
            type=GGML_TYPES[kind][0],
            offset=cursor.number("<Q"),
            size=size,
        )


def _size(what: str, shape: tuple[int, ...], kind: int) -> int:
    if any(length < 1 for length in shape):
        raise InvalidFileError(f"{what} has the impossible shape {shape}")
    elements = math.prod(shape)
    if elements >= 2**63:
        raise InvalidFileError(f"{what} has too many elements: {shape}")
    if kind not in GGML_TYPES:
        raise InvalidFileError(f"{what} has the unknown type {kind}")
    name, block, size = GGML_TYPES[kind]
    if (shape[0] if shape else 1) % block:
        raise InvalidFileError(
            f"{what} has rows that are no multiple of {block} ({name})"
        )
    return elements // block * size


def _place(
    tensors: list[GGUFTensor], data_offset: int, alignment: int, end: int
) -> tuple[GGUFTensor, ...]:
    """Check that the tensors lie apart from each other and inside the file."""
    free = 0
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset % alignment:
            raise InvalidFileError(f"the tensor {tensor.name!r} is not aligned")
        if tensor.offset < free:
            raise InvalidFileError(f"the tensor {tensor.name!r} overlaps another one")
        free = tensor.offset + tensor.size
        if data_offset + free > end:
            raise InvalidFileError(
                f"truncated: the tensor {tensor.name!r} ends at byte "
                f"{data_offset + free} of {end}: download it again"
            )
    return tuple(evolve(t, offset=data_offset + t.offset) for t in tensors)
