"""
What makes tokens less likely because of the tokens before them.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from copy import copy

import numpy as np
from numpy.typing import NDArray

from llmcore.values import SamplingParams

Logits = NDArray[np.float32]
Piece = Callable[[int], bytes]

ENOUGH = 1e30
"""The penalty of a repetition does not grow beyond this, far below the range."""


class Repetition:
    """The repeat, frequency and presence penalties; lives as long as its sampler."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._window = deque[int]()
        self._counts = Counter[int]()

    def accept(self, token: int) -> None:
        """Count a token, and no longer the one that leaves the window."""
        self._window.append(token)
        self._counts[token] += 1
        if len(self._window) > self._params.penalty_last_n:
            oldest = self._window.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def penalise(self, logits: Logits) -> None:
        """Change the logits of the tokens in the window."""
        params, size = self._params, len(self._counts)
        tokens = np.fromiter(self._counts.keys(), np.intp, size)
        counts = np.fromiter(self._counts.values(), np.float64, size)
        values = logits[tokens].astype(np.float64)
        scale = params.repeat_penalty
        values = np.where(values > 0, values / scale, values * scale)
        logits[tokens] = (
            values - counts * params.frequency_penalty - params.presence_penalty
        )

    def fork(self) -> Repetition:
        """An independent copy."""
        twin = copy(self)
        twin._window, twin._counts = self._window.copy(), self._counts.copy()
        return twin


class Dry:
    """
    The penalty of repeated sequences ("don't repeat yourself"); lives as its sampler.

    Args:
        params: With the fields ``dry_...``.

        piece: Text of a token, to find the breakers; without it there are none.
    """

    def __init__(self, params: SamplingParams, piece: Piece | None) -> None:
        self._params = params
        self._window = deque[int](maxlen=params.dry_penalty_last_n)
        self._texts = [text.encode() for text in params.dry_breakers]
        self._piece = piece
        self._known: dict[int, bool] = {}
        growth = math.log(params.dry_base)
        self._longest = params.dry_allowed_length
        if growth:
            self._longest += int(math.log(ENOUGH) / growth)

    def accept(self, token: int) -> None:
        """Remember a token."""
        self._window.append(token)

    def penalise(self, logits: Logits) -> None:
        """Change the logits of the tokens that would go on with a repetition."""
        repeated = self.repeated()
        if not repeated:
            return
        params, size = self._params, len(repeated)
        tokens = np.fromiter(repeated.keys(), np.intp, size)
        lengths = np.fromiter(repeated.values(), np.float64, size)
        exponents = lengths - params.dry_allowed_length
        logits[tokens] -= params.dry_multiplier * params.dry_base**exponents

    def repeated(self) -> dict[int, int]:
        """The tokens that would go on with a repetition, and its length so far."""
        window = np.fromiter(self._window, np.intp, len(self._window))
        lengths = self._lengths(window)
        places = np.flatnonzero(lengths >= self._params.dry_allowed_length)
        places = places[lengths[places].argsort(kind="stable")]
        # Of several places with the same token the last one, the longest, wins.
        longest = dict(
            zip(window[places].tolist(), lengths[places].tolist(), strict=True)
        )
        return {t: n for t, n in longest.items() if not self._breaks(t)}

    def _lengths(self, window: NDArray[np.intp]) -> NDArray[np.intp]:
        """How many tokens before each place are the same as those at the end."""
        lengths = np.zeros(window.size, np.intp)
        ends = np.flatnonzero(window[:-1] == window[-1:])
        length = 0
        while (
            ends.size
            and length < self._longest
            and not self._breaks(int(window[-1 - length]))
        ):
            length += 1
            lengths[ends + 1] = length
            ends = ends[ends >= length]
            ends = ends[window[ends - length] == window[-1 - length]]
        return lengths

    def _breaks(self, token: int) -> bool:
        if self._piece is None:
            return False
        if token not in self._known:
            piece = self._piece(token)
            self._known[token] = any(text in piece for text in self._texts)
        return self._known[token]

    def fork(self) -> Dry:
        """An independent copy; only what is known of the tokens is shared."""
        twin = copy(self)
        twin._window = self._window.copy()
        return twin
