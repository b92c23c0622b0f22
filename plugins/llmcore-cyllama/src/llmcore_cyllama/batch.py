"""A batch in the engine's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmcore.spi import Batch
from llmcore_cyllama.engine import C


class NativeBatch:
    """
    A `LlamaBatch` whose rows are in the order of their sequences.

    Attributes:
        raw: The native batch; lives until `close`.

        places: Where each row of the batch that was filled in is.

        outputs: Whether there is an output at each place.
    """

    def __init__(self, size: int, sequences: int, *, output_all: bool) -> None:
        self.raw: Any = C.LlamaBatch(n_tokens=size, embd=0, n_seq_max=1)
        self.places: Sequence[int] = ()
        self.outputs: Sequence[bool] = ()
        self._output_all = output_all
        self._lists = [[sequence] for sequence in range(sequences)]

    def fill(self, batch: Batch) -> None:
        """Copy a batch."""
        rows = range(len(batch.tokens))
        # The engine computes together what stands in ascending order without gaps, and
        # the rest one after the other.
        order = sorted(rows, key=batch.sequences.__getitem__)
        self.places = sorted(rows, key=order.__getitem__)
        outputs = [True] * len(rows) if self._output_all else batch.outputs
        self.outputs = [outputs[row] for row in order]
        self.raw.clear()
        tokens, positions, sequences, _ = batch
        for row in order:
            self.raw.add(
                tokens[row], positions[row], self._lists[sequences[row]], outputs[row]
            )

    def close(self) -> None:
        """Free it; nothing can reach it then."""
        raw = self.raw
        del self.raw
        raw.close()
