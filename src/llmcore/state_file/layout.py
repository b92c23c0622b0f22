"""
The bytes of a state file.

A file is, with every number in little-endian order:

======== ==================== =======================================================
bytes    part                 meaning
======== ==================== =======================================================
16       magic                ``LLMCORE-STATE``, then NUL, CR, LF
4        format               an unsigned integer, now 1
32       lengths              of header, chat, tokens and payload, 8 bytes each
4        CRC-32               of all before it; up to here, the same in every format
...      header               `StateHeader` as a JSON object
...      chat                 a JSON object, or nothing
...      tokens               the token log, 4 bytes each
...      payload              the backend's own bytes, or nothing
32       SHA-256              of all before it
======== ==================== =======================================================

Nothing in a file is believed before its size and its checksums are right, nothing is
allocated by a number that the size of the file does not bear out, and nothing is ever
unpickled or evaluated. The checksums find damage, not forgery: whoever can write the
file can make them right, so a payload is only as trustworthy as its source.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from attrs import asdict, fields_dict

from llmcore.state_file.strict_json import decode, encode
from llmcore.state_file.values import (
    MOST_CHAT_BYTES,
    MOST_TOKENS,
    SavedState,
    StateHeader,
)

FORMAT = 1
"""The version of the file format that is written, and the only one that is read."""

_MAGIC = b"LLMCORE-STATE\0\r\n"
_START = struct.Struct("<16sI4Q")
_CRC = struct.Struct("<I")
_START_SIZE = _START.size + _CRC.size
_DIGEST_SIZE = hashlib.sha256().digest_size
_TOKEN_SIZE = 4
_LIMITS = {
    "header": 1 << 19,
    "chat": MOST_CHAT_BYTES,
    "tokens": MOST_TOKENS * _TOKEN_SIZE,
    "payload": 1 << 62,
}
"""The most bytes of each part."""


class InvalidFileError(Exception):
    """What is wrong with a file, as the end of a sentence that starts with its path."""


def pack(state: SavedState) -> Iterator[bytes]:
    """The content of a file, piece by piece, without a copy of the payload."""
    header = encode(asdict(state.header))
    chat = b"" if state.chat is None else encode(state.chat)
    tokens = struct.pack(f"<{len(state.tokens)}i", *state.tokens)
    body = (header, chat, tokens, state.payload)
    start = _START.pack(_MAGIC, FORMAT, *map(len, body))
    digest = hashlib.sha256()
    for part in (start, _CRC.pack(zlib.crc32(start)), *body):
        digest.update(part)
        yield part
    yield digest.digest()


def unpack(file: BinaryIO, size: int) -> SavedState:
    """
    Read and check a file of ``size`` bytes, from its start to its end.

    Raises:
        InvalidFileError: Says what is wrong with it.
    """
    start = file.read(_START_SIZE)
    lengths = _lengths(start, size)
    digest = hashlib.sha256(start)
    parts = {}
    for name, length in lengths.items():
        parts[name] = _take(file, length)
        digest.update(parts[name])
    if _take(file, _DIGEST_SIZE) != digest.digest():
        raise InvalidFileError("is damaged: its SHA-256 checksum differs")
    return _state(**parts)


def _lengths(start: bytes, size: int) -> dict[str, int]:
    """The length of each part in bytes, if a file of this size can hold them."""
    if not start:
        raise InvalidFileError("is empty")
    if not _MAGIC.startswith(start[: len(_MAGIC)]):
        raise InvalidFileError("is not a state file of llmcore")
    if len(start) < _START_SIZE:
        raise InvalidFileError("is cut off: it ends within its first bytes")
    _, version, *lengths = _START.unpack_from(start)
    if _CRC.unpack_from(start, _START.size) != (zlib.crc32(start[: _START.size]),):
        raise InvalidFileError("is damaged: the checksum of its first bytes differs")
    if version != FORMAT:
        raise InvalidFileError(
            f"was written in format {version}, this llmcore reads format {FORMAT}: "
            "use a newer llmcore"
        )
    missing = _START_SIZE + sum(lengths) + _DIGEST_SIZE - size
    if missing > 0:
        raise InvalidFileError(f"is cut off: {missing} bytes are missing")
    if missing < 0:
        raise InvalidFileError(f"is damaged: {-missing} bytes follow its end")
    for (name, limit), length in zip(_LIMITS.items(), lengths, strict=True):
        if length > limit:
            raise InvalidFileError(f"is damaged: its {name} part has {length} bytes")
    return dict(zip(_LIMITS, lengths, strict=True))


def _take(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise InvalidFileError("is cut off: another program shortened it meanwhile")
    return data


def _state(header: bytes, chat: bytes, tokens: bytes, payload: bytes) -> SavedState:
    try:
        fields = decode(header)
        if fields.keys() != fields_dict(StateHeader).keys():
            raise ValueError("its header has other fields than a header has")
        return SavedState(
            header=StateHeader(**fields),
            tokens=struct.unpack(f"<{len(tokens) // _TOKEN_SIZE}i", tokens),
            payload=payload,
            chat=decode(chat) if chat else None,
        )
    except (struct.error, TypeError, ValueError, RecursionError) as error:
        raise InvalidFileError(f"is damaged: {error}") from error
