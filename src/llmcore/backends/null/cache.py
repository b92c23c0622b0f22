"""The simulated cache of one sequence: which positions hold which tokens."""

from __future__ import annotations

import hashlib
import struct
import zlib
from array import array
from typing import Literal

from llmcore.errors import StateError
from llmcore.values import CacheKind

Lie = bool | Literal["stay"]

_MAGIC = b"LLMCNUL1"
_HEADER = struct.Struct("<8sQIII")


class Cells:
    """
    The cells of one sequence; lives as long as its context.

    Args:
        kind: Decides what can be removed and what `bounds` says.

        window: Positions that a sliding window keeps.

        salt: Identity of the model; part of every hash and of saved state.
    """

    def __init__(self, kind: CacheKind, window: int, salt: bytes) -> None:
        self.kind = kind
        self.window = window
        self.positions = array("q")
        self.tokens = array("q")
        self._salt = salt
        self._torn = False
        self._hidden = False

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def next_position(self) -> int | None:
        """The position that must come next; None if a lie made any acceptable."""
        if self._hidden:
            return None
        return self.positions[-1] + 1 if self.positions else 0

    def bounds(self) -> tuple[int, int]:
        """
        First and last cached position, ``(-1, -1)`` if there is none.

        Recurrent state stands for its last position only, as in llama.cpp.
        """
        if not self.positions or self._hidden or self.kind is CacheKind.NONE:
            return -1, -1
        last = self.positions[-1]
        recurrent = self.kind in (CacheKind.RECURRENT, CacheKind.HYBRID)
        return (last if recurrent else self.positions[0]), last

    def seed(self) -> int:
        """Hash of everything that the next token depends on."""
        digest = hashlib.blake2b(self._salt, digest_size=8)
        digest.update(b"torn" if self._torn else b"")
        digest.update(self.positions.tobytes() + self.tokens.tobytes())
        return int.from_bytes(digest.digest(), "little")

    def append(self, position: int, token: int) -> None:
        """Add a cell; a sliding window forgets what it leaves behind."""
        self._hidden = False
        self.positions.append(position)
        self.tokens.append(token)
        if self.kind is CacheKind.SLIDING_WINDOW:
            self._keep([p > position - self.window for p in self.positions])

    def clear(self) -> None:
        """Forget everything, lies included."""
        self._torn = self._hidden = False
        del self.positions[:], self.tokens[:]

    def remove(self, start: int, end: int | None, lie: Lie) -> bool:
        """
        Remove ``start <= p < end``; False, and unchanged, if this kind cannot.

        Args:
            start: First position to remove.

            end: The one after the last; None means all from ``start`` on.

            lie: How to answer falsely about the removal of a part. True: yes, but
                then `bounds` is empty although cells remain, and what follows is
                wrong until `clear` (ggml-org/llama.cpp#29045). ``"stay"``: yes, but
                nothing is removed.
        """
        gone = [start <= p and (end is None or p < end) for p in self.positions]
        if not any(gone):
            return True
        if all(gone):
            self.clear()
            return True
        if lie == "stay":
            return True
        if not lie and not self._can_remove_part():
            return False
        self._keep([not g for g in gone])
        if lie:
            self._torn = self._hidden = True
        return True

    def _can_remove_part(self) -> bool:
        if self.kind is CacheKind.SLIDING_WINDOW:
            return self.positions[0] == 0
        return self.kind is CacheKind.FULL

    def _keep(self, wanted: list[bool]) -> None:
        pairs = zip(self.positions, self.tokens, wanted, strict=True)
        kept = [(p, t) for p, t, keep in pairs if keep]
        self.positions = array("q", [p for p, _ in kept])
        self.tokens = array("q", [t for _, t in kept])

    def shift(self, start: int, end: int, delta: int) -> None:
        """Add ``delta`` to the positions ``start <= p < end``."""
        for n, position in enumerate(self.positions):
            if start <= position < end:
                self.positions[n] = position + delta

    def assign(self, other: Cells) -> None:
        """Become an independent copy of another sequence's cells."""
        self.positions = other.positions[:]
        self.tokens = other.tokens[:]
        self._torn, self._hidden = other._torn, other._hidden

    def save(self) -> bytes:
        """The cells as bytes with a header of their own."""
        payload = self.positions.tobytes() + self.tokens.tobytes()
        return (
            _HEADER.pack(
                _MAGIC, self._fingerprint(), len(self), self._torn, zlib.crc32(payload)
            )
            + payload
        )

    def load(self, data: bytes, capacity: int) -> None:
        """
        Replace the cells by saved ones.

        Raises:
            StateError: The bytes are damaged, of another model, or more than
                ``capacity`` cells; nothing has changed.
        """
        count, torn, payload = self._parse(data)
        if count > capacity:
            raise StateError(
                f"saved state has {count} tokens but the sequence holds {capacity}: "
                "load it into a larger context"
            )
        self.positions = array("q", payload[: len(payload) // 2])
        self.tokens = array("q", payload[len(payload) // 2 :])
        self._torn, self._hidden = bool(torn), False

    def is_foreign(self, data: bytes) -> bool:
        """Whether the bytes are a null state, but one of another model."""
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            return False
        return bool(_HEADER.unpack_from(data)[1] != self._fingerprint())

    def _parse(self, data: bytes) -> tuple[int, int, bytes]:
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise StateError("not saved state of the null backend: its header differs")
        _, _, count, torn, checksum = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        if self.is_foreign(data):
            raise StateError("saved state belongs to another model: load it there")
        if len(payload) != 16 * count or zlib.crc32(payload) != checksum:
            raise StateError("saved state is damaged: its length or checksum differs")
        return count, torn, payload

    def _fingerprint(self) -> int:
        identity = self._salt + f"/{self.kind}/{self.window}".encode()
        digest = hashlib.blake2b(identity, digest_size=8).digest()
        return int.from_bytes(digest, "little")
