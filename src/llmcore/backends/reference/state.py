"""The bytes of a sequence in an envelope that says what they belong to."""

from __future__ import annotations

import struct
import zlib

from attrs import frozen

from llmcore.errors import StateError

_MAGIC = b"llmcref\x01"
_HEADER = struct.Struct("<8s16s4s4sQI")


@frozen(kw_only=True)
class Origin:
    """Where a state belongs: to the same weights, and the same types of cache."""

    model: bytes
    kv_type_k: str
    kv_type_v: str


DIFFERENCES = {
    "model": "it was saved with another model",
    "kv_type_k": "it was saved with another kv_type_k",
    "kv_type_v": "it was saved with another kv_type_v",
}


def seal(origin: Origin, payload: bytes) -> bytes:
    """The envelope with the bytes of a cache."""
    header = _HEADER.pack(
        _MAGIC,
        origin.model,
        origin.kv_type_k.encode(),
        origin.kv_type_v.encode(),
        len(payload),
        zlib.crc32(payload),
    )
    return header + payload


def unseal(data: bytes, origin: Origin) -> memoryview:
    """
    The bytes of the cache, if they are whole and belong here.

    Raises:
        StateError: Says what is wrong with them.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise StateError(
            "cannot load state: it is not a state of the reference backend"
        )
    _, model, *types, length, checksum = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise StateError("cannot load state: it is damaged")
    type_k, type_v = (kind.rstrip(b"\0").decode("latin-1") for kind in types)
    found = Origin(model=model, kv_type_k=type_k, kv_type_v=type_v)
    for field, why in DIFFERENCES.items():
        if getattr(found, field) != getattr(origin, field):
            raise StateError(f"cannot load state: {why}")
    return payload
