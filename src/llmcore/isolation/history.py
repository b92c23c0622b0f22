"""
`History`: what the sequences of a context hold, to have it evaluated again elsewhere.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from llmcore.spi import Batch

SAVED = 64
"""Saved states of which the tokens are remembered."""


@define
class _Held:
    """What one sequence holds: perhaps a state, then tokens by their positions."""

    state: bytes | None = None
    cut: int | None = None  # what was removed from the end of the state begins here
    tokens: dict[int, int] = field(factory=dict)

    @property
    def whole(self) -> bool:
        """Whether evaluating the tokens in their order gives the same again."""
        if not self.tokens:
            return True
        first, last = min(self.tokens), max(self.tokens)
        return last - first + 1 == len(self.tokens) and bool(self.state or first == 0)

    def in_order(self) -> list[int]:
        """The tokens."""
        return [self.tokens[position] for position in sorted(self.tokens)]

    def touches_state(self, start: int) -> bool:
        """Whether positions from here on include some of the state."""
        return self.state is not None and start < min(self.tokens, default=start + 1)

    def remove(self, start: int, end: int | None) -> None:
        if self.touches_state(start):
            if end is not None:  # a hole in what cannot be evaluated: lost
                self.state, self.tokens = None, {}
                return
            self.cut = start if self.cut is None else min(self.cut, start)
        self.tokens = {
            position: token
            for position, token in self.tokens.items()
            if position < start or (end is not None and position >= end)
        }

    def shift(self, start: int, end: int, delta: int) -> None:
        if self.touches_state(start):
            self.state, self.tokens = None, {}
        self.tokens = {
            position + delta if start <= position < end else position: token
            for position, token in self.tokens.items()
        }


class History:
    """
    Lives as long as its context.

    Args:
        remembers: Whether there is a cache, and anybody who will ask.
    """

    def __init__(self, remembers: bool) -> None:
        self._remembers = remembers
        self._held = defaultdict[int, _Held](_Held)
        # By length and hash.
        self._saved: OrderedDict[tuple[int, int], array[int]] = OrderedDict()
        self._last: Batch | None = None  # whose outputs may still be asked for

    def decoded(self, batch: Batch) -> None:
        """A batch was evaluated."""
        self._last = batch
        if self._remembers:
            rows = zip(batch.tokens, batch.positions, batch.sequences, strict=True)
            for token, position, number in rows:
                self._held[number].tokens[position] = token

    def kept(self, number: int, last: int) -> None:
        """After a failure a sequence turned out to end at this position."""
        self._last = None
        if last < 0:
            self._held.pop(number, None)
        elif number in self._held:
            self._held[number].remove(last + 1, None)

    def cleared(self, number: int | None) -> None:
        """One sequence, or all, was emptied."""
        self._last = None
        if number is None:
            self._held.clear()
        else:
            self._held.pop(number, None)

    def removed(self, number: int, start: int, end: int | None) -> None:
        """A part was removed."""
        self._last = None
        self._held[number].remove(start, end)

    def copied(self, source: int, target: int) -> None:
        """A sequence was copied."""
        self._last = None
        held = self._held[source]
        self._held[target] = _Held(held.state, held.cut, dict(held.tokens))

    def shifted(self, number: int, start: int, end: int, delta: int) -> None:
        """Positions were moved."""
        self._last = None
        self._held[number].shift(start, end, delta)

    def saved(self, number: int, state: bytes) -> None:
        """A sequence was turned into a state."""
        held = self._held[number]
        if self._remembers and held.state is None and held.whole:
            self._saved[len(state), hash(state)] = array("i", held.in_order())
            while len(self._saved) > SAVED:
                self._saved.popitem(last=False)

    def loaded(self, number: int, state: bytes) -> None:
        """A sequence was replaced by a state; kept only if its tokens are not known."""
        self._last = None
        if not self._remembers:
            return
        tokens = self._saved.get((len(state), hash(state)))
        if tokens is None:
            self._held[number] = _Held(state)
        else:
            self._held[number] = _Held(tokens=dict(enumerate(tokens)))

    def steps(self, batch_size: int) -> Iterator[list[Any]]:
        """
        Calls, each with its arguments, that fill an empty context in the same way.

        The last batch comes last and as it was, so that it has its outputs again. A
        sequence that cannot be had again stays empty.

        Args:
            batch_size: Most tokens of one call.
        """
        last = self._last
        for number, held in self._held.items():
            if not held.whole:
                held.tokens, held.state = {}, None
            if held.state is not None:
                yield ["load_state", number, held.state]
                if held.cut is not None:
                    yield ["remove", number, held.cut, None]
            yield from self._evaluations(number, held, batch_size)
        if last is not None:
            yield ["decode", *last]

    def _evaluations(
        self, number: int, held: _Held, batch_size: int
    ) -> Iterator[list[Any]]:
        again = self._positions_of_last(number)
        left = sorted(set(held.tokens) - again)
        for start in range(0, len(left), batch_size):
            positions = left[start : start + batch_size]
            count = len(positions)
            tokens = [held.tokens[position] for position in positions]
            yield ["decode", tokens, positions, [number] * count, [False] * count]

    def _positions_of_last(self, number: int) -> set[int]:
        if self._last is None:
            return set()
        rows = zip(self._last.positions, self._last.sequences, strict=True)
        return {position for position, sequence in rows if sequence == number}
