"""A context: the caches of some sequences, and where the work runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmcore.backends.reference import state
from llmcore.backends.reference.caches import Cache
from llmcore.backends.reference.gguf_file import Array
from llmcore.backends.reference.key_values import KeyValueCache
from llmcore.backends.reference.network import Network, Part, Step
from llmcore.backends.reference.pooling import Pooling
from llmcore.errors import DecodeAbortedError, DecodeError
from llmcore.spi import BackendContext, Batch
from llmcore.values import ContextMemory, ContextParams, ModelInfo

KV_TYPES = {"f32": np.float32, "f16": np.float16}
"""Element types of keys and values that NumPy has."""


class Results(NamedTuple):
    """What the last batch gave: for each output row, in order."""

    rows: NDArray[np.intp]
    """Its number in the batch."""
    sequences: NDArray[np.int64]
    vectors: Array
    logits: Array
    """Empty if the context is for embeddings."""


NO_RESULTS = Results(
    rows=np.empty(0, np.intp),
    sequences=np.empty(0, np.int64),
    vectors=np.empty((0, 0), np.float32),
    logits=np.empty((0, 0), np.float32),
)


class ReferenceContext(BackendContext):
    """Lives until `close`."""

    def __init__(
        self,
        network: Network,
        info: ModelInfo,
        params: ContextParams,
        pooling: Pooling | None,
    ) -> None:
        types = KV_TYPES[params.kv_type_k], KV_TYPES[params.kv_type_v]
        self._network = network
        self._params = params
        self._pooling = pooling
        self._caches: list[Cache] = [
            network.create_cache(params.size, types) for _ in range(params.sequences)
        ]
        self._origin = state.Origin(
            model=bytes.fromhex(info.fingerprint),
            kv_type_k=params.kv_type_k,
            kv_type_v=params.kv_type_v,
        )
        self._stop = False
        self._results = NO_RESULTS

    @property
    def params(self) -> ContextParams:
        """What was really given."""
        return self._params

    # -- evaluating ------------------------------------------------------------------

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch, ``micro_batch_size`` rows at a time."""
        self._results = NO_RESULTS
        try:
            # What overflows in a network is its own affair: the logits show it.
            with np.errstate(all="ignore"):
                self._results = self._evaluate(batch)
        except MemoryError as error:
            raise DecodeError(
                f"not enough memory to evaluate {len(batch.tokens)} tokens: "
                "create the context with a smaller micro_batch_size"
            ) from error

    def _evaluate(self, batch: Batch) -> Results:
        tokens, positions, sequences = map(np.array, batch[:3])
        wanted = np.array(batch.outputs, bool) | self._params.embeddings
        size = self._params.micro_batch_size
        vectors = list[Array]()
        for start in range(0, len(tokens), size):
            part = slice(start, start + size)
            hidden = self._step(tokens[part], positions[part], sequences[part])
            vectors.append(hidden[wanted[part]])
        rows = np.flatnonzero(wanted)
        found = np.concatenate(vectors)
        no_logits = self._params.embeddings
        return Results(
            rows=rows,
            sequences=sequences[rows],
            vectors=found,
            logits=NO_RESULTS.logits if no_logits else self._network.logits(found),
        )

    def _step(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        sequences: NDArray[np.int64],
    ) -> Array:
        """The vectors of some rows; their caches change only if all goes well."""
        parts = [
            Part(np.flatnonzero(sequences == number), self._caches[number])
            for number in dict.fromkeys(sequences.tolist())
        ]
        for part in parts:
            if len(part.rows) > part.cache.room:
                raise DecodeError(
                    f"{len(part.rows)} tokens do not fit into a sequence with room for "
                    f"{part.cache.room}: remove some, or create a larger context"
                )
            part.cache.extend(positions[part.rows])
        hidden = self._network.hidden(Step(tokens, positions, parts, self._check_stop))
        for part in parts:
            part.cache.commit()
        return hidden

    def _check_stop(self) -> None:
        if self._stop:
            raise DecodeAbortedError("the evaluation was aborted between two layers")

    def abort(self, stop: bool) -> None:
        """Set a flag that is looked at before each layer."""
        self._stop = stop

    def logits(self, row: int) -> Array:
        """A view of the last result."""
        place = np.flatnonzero(self._results.rows == row)
        if not len(place) or not len(self._results.logits):
            raise DecodeError(f"row {row} of the last batch has no logits")
        found: Array = self._results.logits[place[0]]
        return found

    def embedding(self, sequence: int) -> Array:
        """The vectors of a sequence in the last batch, made into one."""
        vectors = self._results.vectors[self._results.sequences == sequence]
        if not len(vectors) or self._pooling is None:
            raise DecodeError(f"sequence {sequence} has no embedding in the last batch")
        return self._pooling(vectors)

    # -- the caches ------------------------------------------------------------------

    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last position."""
        return self._caches[sequence].bounds()

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """Forget one sequence or all."""
        chosen: Sequence[Cache] = (
            self._caches if sequence is None else [self._caches[sequence]]
        )
        for cache in chosen:
            cache.clear(data=data)

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """Always possible for keys and values, never for a recurrent state."""
        cache = self._caches[sequence]
        if not isinstance(cache, KeyValueCache):
            return False
        cache.remove(start, end)
        return True

    def copy(self, source: int, target: int) -> None:
        """Copy what is used."""
        self._caches[target].assign(self._caches[source])

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        """Turn the keys on by ``delta`` positions."""
        cache = self._caches[sequence]
        if not isinstance(cache, KeyValueCache):
            super().shift(sequence, start, end, delta)
        else:
            cache.shift(start, end, delta, self._network.move_keys)

    def save_state(self, sequence: int) -> bytes:
        """The cache in an envelope that says what it belongs to."""
        return state.seal(self._origin, self._caches[sequence].save())

    def load_state(self, sequence: int, data: bytes) -> None:
        """Check the envelope, then fill the cache."""
        self._caches[sequence].load(state.unseal(data, self._origin))

    # -- the end ---------------------------------------------------------------------

    def memory(self) -> ContextMemory:
        """The bytes of the arrays; of those that a step needs, the ones that stay."""
        return ContextMemory(
            kv_cache=sum(cache.size for cache in self._caches),
            compute=sum(array.nbytes for array in self._results),
        )

    def close(self) -> None:
        """Let go of the arrays."""
        del self._caches, self._network, self._results
