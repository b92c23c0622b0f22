"""
`IsolatedSampler`: stands for a sampler in the child; `Guesses`: what it drew unasked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from llmcore.spi import BackendSampler, Batch
from llmcore.values import SamplingParams


class IsolatedSampler(BackendSampler):
    """
    Lives within its context.

    Args:
        number: In the child.

        params: How to choose.

        forget: Frees it.
    """

    def __init__(
        self,
        number: int,
        params: SamplingParams,
        forget: Callable[[IsolatedSampler], Any],
    ) -> None:
        self.number = number
        self.params = params
        self.untold: list[int] = []
        """Accepted, and not yet known to the child."""
        self.seen = deque[int](maxlen=params.lookback)
        self._forget = forget

    @property
    def forgetful(self) -> bool:
        """Whether a draw that nobody asked for makes no difference to later ones."""
        return not (self.params.lookback or self.params.mirostat_tau)

    def accept(self, token: int) -> None:
        """Count a token; the child hears of it with the next `sample`."""
        if self.params.lookback:
            self.untold.append(token)
            self.seen.append(token)

    def close(self) -> None:
        """Free it in the child, if that lives."""
        self._forget(self)


class Guesses:
    """
    Tokens that are drawn right after an evaluation, before anybody asks for them.

    Each saves the way to the child and back. Lives as long as its context.
    """

    def __init__(self) -> None:
        self._usual: dict[int, IsolatedSampler] = {}  # of each sequence
        self._sequences: list[int] = []
        self._drawn: dict[tuple[int, int], int] = {}

    def draws(self, batch: Batch) -> list[tuple[int, int]]:
        """Rows of a batch, each with the number of the sampler that it will need."""
        self._sequences = list(batch.sequences)
        self._drawn.clear()
        rows = [row for row, wanted in enumerate(batch.outputs) if wanted]
        count = Counter(self._sequences[row] for row in rows)
        return [
            (row, self._usual[sequence].number)
            for row in rows
            if count[sequence := self._sequences[row]] == 1 and sequence in self._usual
        ]

    def fill(self, draws: list[tuple[int, int]], tokens: list[int]) -> None:
        """What was drawn, in the same order; perhaps not for all."""
        self._drawn = dict(zip(draws, tokens, strict=False))

    def take(self, row: int, sampler: IsolatedSampler) -> int | None:
        """The token that the sampler drew for a row, once."""
        if sampler.forgetful and row < len(self._sequences):
            self._usual[self._sequences[row]] = sampler
        return self._drawn.pop((row, sampler.number), None)

    def forget(self, sampler: IsolatedSampler) -> None:
        """A sampler is gone."""
        for sequence, usual in list(self._usual.items()):
            if usual is sampler:
                del self._usual[sequence]
