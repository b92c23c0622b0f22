"""A batch in the engine's own layout."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llmcore.backends.llama_cpp.native import C
from llmcore.spi import Batch


@lru_cache(maxsize=64)
def array(kind: Any, size: int) -> Any:
    """The type of such arrays; a new one each time would wait for the collector."""
    return kind * size


class NativeBatch:
    """
    A `llama_batch` over arrays that live as long as this object.

    Its rows are in the order of their sequences: ``rows`` gives the place of each row
    of the batch that was filled in, ``outputs`` whether there is one at that place.
    """

    def __init__(self, size: int, *, output_all: bool) -> None:
        self._output_all = output_all
        self._identity = range(size)
        self.rows: Sequence[int] = self._identity
        self._tokens = array(ctypes.c_int32, size)()
        self._positions = array(ctypes.c_int32, size)()
        self._sequences = array(ctypes.c_int32, size)()
        self.outputs = array(ctypes.c_int8, size)(*([1] * size))
        counts = array(ctypes.c_int32, size)(*([1] * size))
        pointer = ctypes.POINTER(ctypes.c_int32)
        start = ctypes.addressof(self._sequences)
        lists = array(ctypes.c_void_p, size)(*range(start, start + 4 * size, 4))
        self.raw = C.llama_batch(
            n_tokens=0,
            token=self._tokens,
            pos=self._positions,
            n_seq_id=counts,
            seq_id=ctypes.cast(lists, ctypes.POINTER(pointer)),
            logits=self.outputs,
        )

    def fill(self, batch: Batch) -> None:
        """Copy a batch; a single token, the usual case, takes the short way."""
        tokens, positions, sequences, outputs = batch
        count = len(tokens)
        self.rows = self._identity
        if count == 1:
            self._tokens[0] = tokens[0]
            self._positions[0] = positions[0]
            self._sequences[0] = sequences[0]
            if not self._output_all:
                self.outputs[0] = outputs[0]
        else:
            ordered = sorted(sequences)
            if ordered != list(sequences):
                tokens, positions, _, outputs = self._reorder(batch)
            self._tokens[:count] = tokens
            self._positions[:count] = positions
            self._sequences[:count] = ordered
            if not self._output_all:
                self.outputs[:count] = outputs
        self.raw.n_tokens = count

    def _reorder(self, batch: Batch) -> Batch:
        # The engine computes together what stands in ascending order without gaps, and
        # the rest one after the other.
        order = sorted(range(len(batch.tokens)), key=batch.sequences.__getitem__)
        rows = [0] * len(order)
        for native, row in enumerate(order):
            rows[row] = native
        self.rows = rows
        columns: list[list[Any]] = [[column[row] for row in order] for column in batch]
        return Batch(*columns)
