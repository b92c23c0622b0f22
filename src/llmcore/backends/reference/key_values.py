"""The memory of attention: keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llmcore.backends.reference.caches import EMPTY, Cache, Positions, too_long
from llmcore.backends.reference.gguf_file import Array
from llmcore.errors import StateError


class KeyValueCache(Cache):
    """
    Keys and values of attention: one cell for each token, in each layer.

    Cells are in the order in which they came; which position a cell has is written
    beside it. A sliding window is no matter of the cache: attention looks away.

    Args:
        shape: Layers, key heads, cells, size of a head.

        types: Element types of keys and values.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], types: tuple[DTypeLike, DTypeLike]
    ) -> None:
        self._keys = np.zeros(shape, types[0])
        self._values = np.zeros(shape, types[1])
        self._positions = np.zeros(shape[2], np.int64)
        self._count = self._end = 0

    @property
    def room(self) -> int:
        """Cells that are free."""
        return len(self._positions) - self._count

    @property
    def size(self) -> int:
        """All cells, used or not."""
        return self._keys.nbytes + self._values.nbytes + self._positions.nbytes

    def extend(self, positions: Positions) -> None:
        """Take free cells."""
        self._end = self._count + len(positions)
        self._positions[self._count : self._end] = positions

    def write(self, layer: int, keys: Array, values: Array) -> None:
        """Fill the new cells of a layer; shapes (rows, key heads, size)."""
        self._keys[layer, :, self._count : self._end] = keys.swapaxes(0, 1)
        self._values[layer, :, self._count : self._end] = values.swapaxes(0, 1)

    def read(self, layer: int) -> tuple[Array, Array, Positions]:
        """Keys and values (key heads, cells, size) and positions, new ones included."""
        return (
            self._keys[layer, :, : self._end].astype(np.float32, copy=False),
            self._values[layer, :, : self._end].astype(np.float32, copy=False),
            self._positions[: self._end],
        )

    def commit(self) -> None:
        """Count the new cells."""
        self._count = self._end

    def bounds(self) -> tuple[int, int]:
        """Of the cells that count."""
        used = self._positions[: self._count]
        return (int(used.min()), int(used.max())) if self._count else EMPTY

    def clear(self, *, data: bool = False) -> None:
        """Free all cells."""
        self._count = self._end = 0
        if data:
            for array in (self._keys, self._values, self._positions):
                array.fill(0)

    def remove(self, start: int, end: int | None) -> None:
        """Free the cells of ``start <= p < end``; the others close ranks."""
        used = self._positions[: self._count]
        self._keep((used < start) | (used >= (np.inf if end is None else end)))

    def shift(
        self, start: int, end: int, delta: int, move: Callable[[int, Array, int], Array]
    ) -> None:
        """
        Add to positions; cells that would get a negative one are freed.

        Args:
            move: ``move(layer, keys, delta)`` turns keys to their new places.
        """
        used = self._positions[: self._count]
        cells = np.flatnonzero((used >= start) & (used < end))
        for layer in range(len(self._keys)):
            keys = self._keys[layer][:, cells].astype(np.float32, copy=False)
            self._keys[layer][:, cells] = move(layer, keys, delta)
        used[cells] += delta
        self._keep(used >= 0)

    def _keep(self, wanted: NDArray[np.bool_]) -> None:
        if wanted.all():
            return
        kept = np.flatnonzero(wanted)
        self._count = self._end = len(kept)
        self._keys[:, :, : len(kept)] = self._keys[:, :, kept]
        self._values[:, :, : len(kept)] = self._values[:, :, kept]
        self._positions[: len(kept)] = self._positions[kept]

    def assign(self, other: KeyValueCache) -> None:
        """Copy the cells that are used."""
        self._count = self._end = other._count
        for mine, theirs in zip(self._parts(), other._parts(), strict=True):
            mine[:] = theirs

    def save(self) -> bytes:
        """The used cells: positions, keys, values."""
        return b"".join(part.tobytes() for part in self._parts())

    def load(self, data: memoryview) -> None:
        """Positions, keys, values: as many cells as there are bytes for."""
        count, rest = divmod(len(data), self.size // len(self._positions))
        positions = np.frombuffer(data[: 8 * count], np.int64)
        if rest or (positions < 0).any():
            raise StateError("cannot load state: it is of another shape")
        if count > len(self._positions):
            raise too_long(count, len(self._positions))
        self._count = self._end = count
        start = 0
        for part in self._parts():
            values = np.frombuffer(data[start : start + part.nbytes], part.dtype)
            part[:] = values.reshape(part.shape)
            start += part.nbytes

    def _parts(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        return (
            self._positions[: self._count],
            self._keys[:, :, : self._count],
            self._values[:, :, : self._count],
        )
