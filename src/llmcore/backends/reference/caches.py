"""
What one sequence remembers.

A step writes into a cache without changing it: `Cache.extend` says what will come, the
layers write and read, and only `Cache.commit` makes it count. So a step that ends
early leaves every cache as it was.
"""

from __future__ import annotations

import abc
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from llmcore.errors import StateError

EMPTY = (-1, -1)

Positions = NDArray[np.int64]
Self = TypeVar("Self", bound="Cache")


class Cache(abc.ABC):
    """The memory of one sequence; lives as long as its context."""

    @property
    @abc.abstractmethod
    def room(self) -> int:
        """Tokens that still fit."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Bytes that it uses."""

    @abc.abstractmethod
    def extend(self, positions: Positions) -> None:
        """Begin a step with tokens at these positions; forgets an unfinished one."""

    @abc.abstractmethod
    def commit(self) -> None:
        """End the step: what was written counts."""

    @abc.abstractmethod
    def bounds(self) -> tuple[int, int]:
        """First and last position, ``(-1, -1)`` if it is empty."""

    @abc.abstractmethod
    def clear(self, *, data: bool = False) -> None:
        """Forget everything; ``data`` also overwrites the memory."""

    @abc.abstractmethod
    def assign(self: Self, other: Self) -> None:
        """Become an independent copy of another one of the same network."""

    @abc.abstractmethod
    def save(self) -> bytes:
        """Everything as bytes."""

    @abc.abstractmethod
    def load(self, data: memoryview) -> None:
        """
        Become what was saved.

        Raises:
            StateError: The bytes do not fit; nothing has changed.
        """


class NoCache(Cache):
    """Of a network that sees a whole text at once and remembers nothing."""

    def __init__(self, length: int) -> None:
        self._length = length

    @property
    def room(self) -> int:
        """As many as one text may have."""
        return self._length

    @property
    def size(self) -> int:
        """Nothing."""
        return 0

    def extend(self, positions: Positions) -> None:
        """Nothing to do, as below."""

    def commit(self) -> None:
        """Nothing."""

    def bounds(self) -> tuple[int, int]:
        """It is always empty."""
        return EMPTY

    def clear(self, *, data: bool = False) -> None:
        """Nothing."""

    def assign(self, other: NoCache) -> None:
        """Nothing."""

    def save(self) -> bytes:
        """No bytes."""
        return b""

    def load(self, data: memoryview) -> None:
        """Only no bytes fit."""
        check_size(data, 0)


def too_long(count: int, length: int) -> StateError:
    """What is wrong with a state of more tokens than a sequence holds."""
    return StateError(
        f"cannot load state: it has {count} tokens but a sequence here holds {length}: "
        f"create the context with context_size={count} or more"
    )


def check_size(data: memoryview, size: int) -> None:
    """
    Raises:
        StateError: There are more or fewer bytes than that.
    """
    if len(data) != size:
        raise StateError("cannot load state: it is of another shape")
