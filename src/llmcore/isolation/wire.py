"""
What crosses between the two processes: frames, messages, and what each call may carry.

A frame is its length, 8 bytes little-endian, and so many bytes of MessagePack. On one
connection a call is always answered before the next one is sent, so a frame never
follows another.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from functools import cached_property
from types import NoneType
from typing import Any

import msgspec
from attrs import field, frozen

from llmcore.values import (
    ContextMemory,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
    SamplingParams,
)

HEADER = struct.Struct("<Q")
CHUNK = 1 << 18
"""Bytes asked for at once: a length that lies costs no more memory than this."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LARGEST = 4 * GIB - 1
"""Bytes that the parent may send in one frame: what MessagePack can count."""


BACKEND = 0
"""The number of the object that every other one is made from."""


class MalformedError(Exception):
    """The other side sent what cannot be; the text says what."""


# -- frames ----------------------------------------------------------------------------


def send(connection: socket.socket, content: bytes) -> None:
    """Send one frame."""
    connection.sendall(HEADER.pack(len(content)) + content)


def receive(connection: socket.socket, limit: int) -> bytes:
    """
    Read one frame.

    Args:
        connection: Its timeout holds for each part of the frame.

        limit: Most bytes that the frame may have.

    Raises:
        EOFError: The other side is gone.

        MalformedError: The frame is too long, or more follows it.
    """
    data = _part(connection)
    while len(data) < HEADER.size:
        data += _part(connection)
    (length,) = HEADER.unpack_from(data)
    if length > limit:
        raise MalformedError(f"a frame of {length} bytes where at most {limit} fit")
    missing = length + HEADER.size - len(data)
    if missing > 0:
        parts = [data]
        while missing > 0:
            parts.append(_part(connection))
            missing -= len(parts[-1])
        data = b"".join(parts)
    if missing < 0:
        raise MalformedError("more than one reply at once")
    return data[HEADER.size :]


def _part(connection: socket.socket) -> bytes:
    part = connection.recv(CHUNK)
    if not part:
        raise EOFError("the connection was closed")
    return part


# -- messages --------------------------------------------------------------------------

Plain = str | int | float | bool | None


class Call(msgspec.Struct, array_like=True, frozen=True):
    """To the child: do this. ``target`` is the number of an object, 0 the backend."""

    number: int
    op: str
    target: int
    arguments: msgspec.Raw


class Done(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """From the child: what the call of that number returned."""

    number: int
    result: msgspec.Raw


class Failed(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """
    From the child: what the call of that number raised.

    ``kind`` is the name of a class of `llmcore.errors`, or empty for anything else.
    """

    number: int
    kind: str
    arguments: tuple[Plain, ...]
    traceback: str


class Progress(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """From the child: a load has come so far; waits for a `GoOn`."""

    number: int
    share: float


class GoOn(msgspec.Struct, array_like=True, frozen=True):
    """To the child: whether the load goes on."""

    go_on: bool


Reply = Done | Failed | Progress


class Created(msgspec.Struct, array_like=True, frozen=True):
    """What the child says of a new context."""

    params: ContextParams
    can_shift: bool


Drawn = tuple[int, bytes]
"""A token and its piece, which its reader would ask for next."""

RING = struct.Struct("<QQ")
"""The bell: which context is to stop, and when that was asked, see `Alarm`."""


# -- calls -----------------------------------------------------------------------------


@frozen
class Op:
    """What a call carries: the types of its arguments and of its result."""

    arguments: Any
    result: Any = NoneType
    limit: int = field(default=64 * KIB, kw_only=True)
    """Most bytes of a reply."""

    @cached_property
    def read_arguments(self) -> msgspec.msgpack.Decoder[Any]:
        """Strict."""
        return msgspec.msgpack.Decoder(self.arguments)

    @cached_property
    def read_result(self) -> msgspec.msgpack.Decoder[Any]:
        """Strict."""
        return msgspec.msgpack.Decoder(self.result)


OPS = {
    # the backend
    "start": Op(tuple[str]),
    "devices": Op(tuple[()], list[Device], limit=MIB),
    "load_model": Op(tuple[int, bytes | None, ModelParams], ModelInfo, limit=GIB),
    # a model
    "tokenize": Op(tuple[bytes], list[int], limit=GIB),
    "piece": Op(tuple[int], bytes),
    "create_context": Op(tuple[int, ContextParams], Created),
    # a context
    "decode": Op(
        tuple[int, list[int], list[int], list[int], list[bool], list[tuple[int, int]]],
        list[Drawn],
        limit=MIB,
    ),
    "bounds": Op(tuple[int], tuple[int, int]),
    "clear": Op(tuple[int | None, bool]),
    "memory": Op(tuple[()], ContextMemory),
    "logits": Op(tuple[int]),
    "embedding": Op(tuple[int]),
    "create_sampler": Op(tuple[int, SamplingParams, int], bool),
    "sample": Op(tuple[int, int, list[int]], Drawn),
    "close_sampler": Op(tuple[int]),
    "remove": Op(tuple[int, int, int | None], bool),
    "copy": Op(tuple[int, int]),
    "shift": Op(tuple[int, int, int, int]),
    "save_state": Op(tuple[int], bytes, limit=LARGEST),
    "load_state": Op(tuple[int, bytes]),
    # each of them
    "close": Op(tuple[()]),
}
"""Every call there is."""


def _plain(value: Any) -> Any:
    """What an engine's own types are in plain ones: numbers of NumPy, mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    try:
        return value.item()
    except AttributeError:
        raise TypeError(f"a {type(value).__name__} cannot be sent") from None


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
read_call = msgspec.msgpack.Decoder(Call).decode
read_reply = msgspec.msgpack.Decoder(Reply).decode
read_go_on = msgspec.msgpack.Decoder(GoOn).decode
