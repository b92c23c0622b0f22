"""The cache of one sequence, and where the work runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmcore.backends.ctransformers.limits import cache_bytes, compute_bytes
from llmcore.backends.ctransformers.model_file import ModelFile
from llmcore.backends.ctransformers.native import Handle
from llmcore.errors import DecodeError
from llmcore.spi import BackendContext, Batch
from llmcore.values import ContextMemory, ContextParams

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CtransformersContext(BackendContext):
    """
    Lives until `close`.

    The library keeps no count of what its cache holds: each evaluation says where it
    starts, and sees what lies before. So to remove the end is to count less.

    Args:
        handle: Nobody else evaluates with it.

        file: Of its model.

        params: What is really given.

        release: Called once at the end, to free the handle or give it back.

        weights: Bytes of weights that it does not share with its model.
    """

    def __init__(
        self,
        handle: Handle,
        file: ModelFile,
        params: ContextParams,
        release: Callable[[], object],
        weights: int,
    ) -> None:
        self._handle = handle
        self._file = file
        self._params = params
        self._release = release
        self._weights = weights
        self._length = 0
        self._written = 0  # cells from the first that were ever used
        self._rows: dict[int, NDArray[np.float32]] = {}

    @property
    def params(self) -> ContextParams:
        """What was really given."""
        return self._params

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch; as it gives logits of the last token only, in parts."""
        self._rows = {}
        start, last = 0, len(batch.tokens) - 1
        for row, wanted in enumerate(batch.outputs):
            if wanted or row == last:
                self._evaluate(batch.tokens[start : row + 1])
                start = row + 1
            if wanted:
                self._rows[row] = np.array(self._handle.logits(), np.float32)

    def _evaluate(self, tokens: Sequence[int]) -> None:
        params = self._params
        threads = params.threads if len(tokens) == 1 else params.threads_batch
        done = self._handle.evaluate(
            tokens,
            self._length,
            at_once=params.micro_batch_size,
            threads=threads or 1,
        )
        self._written = max(self._written, self._length + len(tokens))
        if not done:
            raise DecodeError("ctransformers failed to evaluate: it lacks memory")
        self._length += len(tokens)

    def logits(self, row: int) -> NDArray[np.float32]:
        """Those of a row of the last batch."""
        if row not in self._rows:
            raise DecodeError(f"row {row} of the last batch has no logits")
        return self._rows[row]

    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last cached position."""
        return (0, self._length - 1) if self._length else (-1, -1)

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """
        Forget all.

        Memory is overwritten by evaluating something else, which takes as long as the
        longest text did that the context held: the library has no other way.
        """
        self._length = 0
        if data and self._written:
            used, self._written = self._written, 0
            self._evaluate([0] * used)
            self._length = self._written = 0

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """Forget the end; a hole within cannot be."""
        if end is not None and end < self._length:
            return False
        self._length = min(self._length, start)
        return True

    def memory(self) -> ContextMemory:
        """The exact size of its cache, and at most what it has besides."""
        size = self._params.size
        working = compute_bytes(self._file, size, self._params.micro_batch_size)
        return ContextMemory(
            kv_cache=cache_bytes(self._file, size), compute=self._weights + working
        )

    def close(self) -> None:
        """Free the cache, or give it back to the model."""
        release = self._release
        del self._handle, self._release
        release()
