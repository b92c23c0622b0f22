"""Where an engine puts what it holds for a while: best fit, in one growing buffer."""

from __future__ import annotations

from typing import NamedTuple

_ALIGNMENT = 32
_ENDLESS = 2**63


class Block(NamedTuple):
    """A part of the buffer: where it starts and its bytes."""

    start: int
    size: int


class Arena:
    """
    Lives as long as one graph is laid out; counts, and holds no memory.

    A graph needs more than it holds at its fullest moment, since what is freed leaves
    holes that the next tensor may not fit in; how much more is known by doing what
    the engine does (``ggml_dyn_tallocr_alloc`` in ``ggml/src/ggml-alloc.c``).

    Attributes:
        peak: Bytes of the buffer that it takes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._holes = [Block(0, _ENDLESS)]

    def take(self, size: int) -> Block:
        """Room for so many bytes: in the smallest hole that will do, or at the end."""
        size = -(-size // _ALIGNMENT) * _ALIGNMENT
        inner = [hole for hole in self._holes[:-1] if hole.size >= size]
        # Of holes of the same size the engine takes the last one.
        hole = min(reversed(inner), key=lambda h: h.size, default=self._holes[-1])
        place = self._holes.index(hole)
        rest = Block(hole.start + size, hole.size - size)
        self._holes[place : place + 1] = [rest] if rest.size else []
        self.peak = max(self.peak, rest.start)
        return Block(hole.start, size)

    def give(self, *blocks: Block) -> None:
        """Take parts back; neighbours become one hole."""
        holes: list[Block] = []
        for block in sorted([*self._holes, *blocks]):
            if holes and holes[-1].start + holes[-1].size == block.start:
                holes[-1] = Block(holes[-1].start, holes[-1].size + block.size)
            elif block.size:
                holes.append(block)
        self._holes = holes
