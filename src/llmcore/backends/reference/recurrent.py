"""The memory of a recurrent network: its states."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmcore.backends.reference.caches import Cache, Positions, check_size, too_long
from llmcore.backends.reference.gguf_file import Array


class State(NamedTuple):
    """What a recurrent layer remembers; never changed, always replaced."""

    inputs: Array
    """The last ones, for the convolution: shape (kernel - 1, inner)."""
    memory: Array
    """Shape (inner, state)."""


class RecurrentCache(Cache):
    """
    One state for each layer, of which no part can be removed.

    Args:
        first: The states before the first token.

        length: Tokens that the sequence may have.
    """

    def __init__(self, first: list[State], length: int) -> None:
        self._first = self._states = self._next = first
        self._length = length
        self._last = self._next_last = -1

    @property
    def room(self) -> int:
        """It forgets as it goes on, but positions end with the context."""
        return self._length - 1 - self._last

    @property
    def size(self) -> int:
        """The same however much it has seen."""
        return sum(array.nbytes for state in self._first for array in state)

    def extend(self, positions: Positions) -> None:
        """Begin with the states as they are."""
        self._next_last = int(positions[-1])
        self._next = list(self._states)

    def read(self, layer: int) -> State:
        """The state of a layer before this step."""
        return self._next[layer]

    def write(self, layer: int, state: State) -> None:
        """The state of a layer after this step."""
        self._next[layer] = state

    def commit(self) -> None:
        """Replace the states."""
        self._states, self._last = self._next, self._next_last

    def bounds(self) -> tuple[int, int]:
        """A state stands for its last position only."""
        return self._last, self._last

    def clear(self, *, data: bool = False) -> None:
        """Go back to the states before the first token."""
        self._states, self._last = self._first, -1

    def assign(self, other: RecurrentCache) -> None:
        """Share the states, as they never change."""
        self._states, self._last = other._states, other._last

    def save(self) -> bytes:
        """The last position and all states."""
        arrays = [array.tobytes() for state in self._states for array in state]
        return b"".join([np.int64(self._last).tobytes(), *arrays])

    def load(self, data: memoryview) -> None:
        """The same, if it is not beyond the end of this sequence."""
        check_size(data, 8 + self.size)
        last = max(-1, int(np.frombuffer(data[:8], np.int64)[0]))
        if last >= self._length:
            raise too_long(last + 1, self._length)
        states, start = list[State](), 8
        for state in self._first:
            arrays = []
            for array in state:
                end = start + array.nbytes
                values = np.frombuffer(data[start:end], np.float32)
                arrays.append(values.reshape(array.shape).copy())
                start = end
            states.append(State(*arrays))
        self._states, self._last = states, last
