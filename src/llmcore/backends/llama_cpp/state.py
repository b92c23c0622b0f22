"""An envelope around the engine's state bytes, read before the engine sees them."""

from __future__ import annotations

import struct
import zlib

from attrs import frozen

from llmcore.errors import StateError

_HEADER = struct.Struct("<8sI16sIIIIQI")
_MAGIC = b"llmcore\x01"


@frozen(kw_only=True)
class Origin:
    """
    Where a state belongs: it fits a context of equal origin only.

    ``format`` is the engine's version of its own bytes, ``model`` a fingerprint.
    """

    format: int
    model: bytes
    kv_type_k: int
    kv_type_v: int
    sequences: int


DIFFERENCES = {
    "format": "it was saved by another version of llama.cpp",
    "model": "it was saved with another model",
    "kv_type_k": "it was saved with another kv_type_k",
    "kv_type_v": "it was saved with another kv_type_v",
    "sequences": "it was saved from a context with another number of sequences",
}


def seal(origin: Origin, positions: int, payload: bytes | bytearray) -> bytes:
    """The envelope with the engine's bytes of a sequence that holds ``positions``."""
    header = _HEADER.pack(
        _MAGIC,
        origin.format,
        origin.model,
        origin.kv_type_k,
        origin.kv_type_v,
        origin.sequences,
        positions,
        len(payload),
        zlib.crc32(payload),
    )
    return header + payload


def unseal(data: bytes, origin: Origin, capacity: int) -> memoryview:
    """
    The engine's bytes, if they are whole and fit.

    Raises:
        StateError: Says what is wrong with them.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise StateError("cannot load state: it is not a state of llama.cpp")
    _, *found, positions, length, checksum = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise StateError("cannot load state: it is damaged")
    for (field, why), value in zip(DIFFERENCES.items(), found, strict=True):
        if value != getattr(origin, field):
            raise StateError(f"cannot load state: {why}")
    if positions > capacity:
        raise StateError(
            f"cannot load state: it has {positions} tokens but a sequence here holds "
            f"{capacity}: create the context with context_size={positions} or more"
        )
    return payload
