"""A native context: the caches of some sequences, and where the work runs."""

from __future__ import annotations

import array
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcore.backends.llama_cpp import logs, state
from llmcore.backends.llama_cpp.rules import (
    KV_TYPE_NUMBERS,
    POSITION_TABLES,
    SHIFTED_TYPES,
    usage,
    window,
)
from llmcore.backends.llama_cpp.sampler import best_token
from llmcore.errors import (
    CapabilityError,
    DecodeAbortedError,
    DecodeError,
    StateError,
)
from llmcore.spi import BackendContext, BackendSampler, Batch
from llmcore.values import (
    CacheKind,
    Capability,
    ContextMemory,
    ContextParams,
    ModelInfo,
    SamplingParams,
)
from llmcore_cyllama import engine
from llmcore_cyllama.abort import Abort
from llmcore_cyllama.batch import NativeBatch
from llmcore_cyllama.sampler import CyllamaSampler, create

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPARSE = 8
"""A cache less full than one part in this is copied faster as bytes."""


class CyllamaContext(BackendContext):
    """Lives until `close`; owns the native context it is given."""

    def __init__(
        self,
        native: Any,
        params: ContextParams,
        info: ModelInfo,
        lines: list[logs.Line],
    ) -> None:
        self._native = native
        self._params = params
        self._info = info
        self._cached = info.cache_kind is not CacheKind.NONE
        self._window = window(info)
        self._usage = usage(lines)
        self._batch = NativeBatch(
            params.batch_size, params.sequences, output_all=params.embeddings
        )
        self._rows = 0
        self._copies_pending = False
        self._origin = state.Origin(
            # cyllama does not tell the version of the bytes, which is the build's.
            format=zlib.crc32(info.build.encode()),
            model=bytes.fromhex(info.fingerprint),
            kv_type_k=KV_TYPE_NUMBERS[params.kv_type_k],
            kv_type_v=KV_TYPE_NUMBERS[params.kv_type_v],
            sequences=params.sequences,
        )
        self._abort = Abort(native)

    @property
    def params(self) -> ContextParams:
        """What was really given."""
        return self._params

    # -- evaluating ------------------------------------------------------------------

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch."""
        self._rows = 0
        self._batch.fill(batch)
        try:
            self._run()
        except DecodeError as error:
            self._forget_half_done(error, batch)
            raise
        self._rows = len(batch.tokens)
        self._copies_pending = False

    def _run(self) -> None:
        """Evaluate what the batch is filled with."""
        native = self._native
        run = native.decode if self._cached else native.encode
        try:
            run(self._batch.raw)
        except InterruptedError as error:
            raise DecodeAbortedError("decode failed: aborted") from error
        except (ValueError, RuntimeError) as error:
            raise DecodeError(f"decode failed: {error}") from error

    def _forget_half_done(self, error: DecodeError, batch: Batch) -> None:
        # A recurrent state cannot be taken back: the engine counts the aborted tokens
        # as done although the state may be anything. Empty is the truth that is left.
        # For several sequences it also puts their states side by side, in place of
        # those of others, whose new places are then only on paper.
        restored = isinstance(error.__cause__, ValueError)  # refused before it began
        if restored or Capability.PARTIAL_REMOVE in self._info.capabilities:
            return
        sequences = set(batch.sequences)
        self.clear(sequences.pop() if len(sequences) == 1 else None)

    def abort(self, stop: bool) -> None:
        """Set a flag, which the engine reads between two operations."""
        self._abort.set(stop)

    def logits(self, row: int) -> NDArray[np.float32]:
        """A copy, since cyllama shows them as a list only."""
        values = self._native.get_logits_ith(self._output(row))
        return np.frombuffer(array.array("f", values), np.float32)  # faster than NumPy

    def _output(self, row: int) -> int:
        """Where the engine has a row."""
        if 0 <= row < self._rows:
            place = self._batch.places[row]
            if self._batch.outputs[place]:
                return place
        raise DecodeError(f"row {row} of the last batch has no logits")

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> BackendSampler | None:
        """For greedy choice, and for what truncates and draws without memory."""
        return create(params, seed)

    def sample(self, row: int, sampler: BackendSampler) -> int:
        """
        Draw by the engine, which saves the way of all logits through a list.

        It does not notice NaN. Where all logits are NaN, or none is possible, its
        greedy choice is token 0, so then they are looked at.
        """
        assert isinstance(sampler, CyllamaSampler)
        place = self._output(row)
        best: int = sampler.greedy.sample(self._native, place)
        if best == 0:
            best_token(self.logits(row))
        if sampler.chain is sampler.greedy:
            return best
        token: int = sampler.chain.sample(self._native, place)
        return token

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        """The pooled vector of a sequence."""
        vector = self._native.get_embeddings_seq(sequence) if self._rows else None
        if vector is None:
            raise DecodeError(f"sequence {sequence} has no embedding in the last batch")
        return np.array(vector, np.float32)

    # -- the cache -------------------------------------------------------------------

    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last position that the engine has."""
        native = self._native
        return native.memory_seq_pos_min(sequence), native.memory_seq_pos_max(sequence)

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """Forget one sequence or all."""
        if not self._cached:
            return
        if sequence is None:
            self._native.kv_cache_clear(data)
        else:
            self._native.memory_seq_rm(sequence, -1, -1)

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """
        Remove positions, unless what must stay has already left a sliding window.

        The engine says True to such a removal too, and then computes nonsense.
        """
        if not self._cached:
            return False
        if self._window and start > 0:
            first, last = self.bounds(sequence)
            if start <= last and first > max(0, start - self._window):
                return False
        removed: bool = self._native.memory_seq_rm(
            sequence, start, -1 if end is None else end
        )
        return removed

    def copy(self, source: int, target: int) -> None:
        """
        Copy by the engine's own means, unless its bytes are the cheaper way.

        The engine notes a copy at once, but copies a whole cache, the empty places
        too, in the next decode. Until then the bytes of `save_state` lack it, and what
        is loaded into either sequence gets lost.
        """
        length = self.bounds(source)[1] + 1
        kind, capacity = self._info.cache_kind, self._params.size
        if kind is CacheKind.RECURRENT:
            self._native.memory_seq_cp(source, target, -1, -1)
        elif self._copies_later and length * SPARSE > capacity:
            self._native.memory_seq_cp(source, target, -1, -1)
            self._copies_pending = True
        else:
            self._write_state(target, self._read_state(source))

    @property
    def _copies_later(self) -> bool:
        """Whether pending copies can be done at any time without harm."""
        kinds = (CacheKind.FULL, CacheKind.SLIDING_WINDOW)  # no state to go astray
        table = self._info.architecture in POSITION_TABLES  # no position beyond it
        return self._info.cache_kind in kinds and not table

    @property
    def can_shift(self) -> bool:
        """Whether model, cache and the type of its keys all allow it."""
        return (
            Capability.SHIFT in self._info.capabilities
            and self._params.kv_type_k in SHIFTED_TYPES
            and bool(self._native.memory_can_shift())
        )

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        """
        Move positions, at once; costs the evaluation of one token.

        The engine itself only notes a shift, and rotates the keys in the next decode.
        If that one is aborted half of them are rotated twice, and bytes saved before
        it are not rotated at all.
        """
        if not self.can_shift:
            raise CapabilityError(
                f"a cache with kv_type_k={self._params.kv_type_k!r} of this model "
                "cannot shift positions: that needs a model with Capability.SHIFT, "
                "and 'f16' or 'f32'"
            )
        self._native.memory_seq_add(sequence, start, end, delta)
        self._do_pending(sequence)

    def _do_pending(self, sequence: int) -> None:
        """Make the engine do what it has noted, by a token that is removed again."""
        position = self.bounds(sequence)[1] + 1
        self._rows = 0
        self._batch.fill(Batch([0], [position], [sequence], [False]))
        try:
            with self._abort.off():
                self._run()
            self._native.memory_seq_rm(sequence, position, -1)
        except DecodeError as error:
            # That there is no place for the token is found after all is done.
            if not isinstance(error.__cause__, ValueError):
                raise
        self._copies_pending = False

    # -- state -----------------------------------------------------------------------

    def save_state(self, sequence: int) -> bytes:
        """The engine's bytes in an envelope that says what they belong to."""
        positions = self.bounds(sequence)[1] + 1
        return state.seal(self._origin, positions, self._read_state(sequence))

    def load_state(self, sequence: int, data: bytes) -> None:
        """Check the envelope, then hand the bytes to the engine."""
        capacity = self._params.size
        self._write_state(sequence, state.unseal(data, self._origin, capacity))

    def _read_state(self, sequence: int) -> bytes:
        if self._copies_pending:
            self._do_pending(sequence)
        data: bytes = self._native.get_state_seq_data(sequence)
        return data

    def _write_state(self, sequence: int, data: bytes | memoryview) -> None:
        if self._copies_pending:
            self._do_pending(sequence)
        self.clear(sequence)  # the engine itself keeps it if the state is an empty one
        with logs.captured() as lines:
            try:
                self._native.set_state_seq_data(bytes(data), sequence)
            except ValueError as error:
                self.clear(sequence)
                reason = logs.reason(lines)
                message = f"cannot load sequence {sequence}: {reason}"
                raise StateError(message) from error

    # -- the end ---------------------------------------------------------------------

    def memory(self) -> ContextMemory:
        """What the engine reported when it made the context."""
        return self._usage

    def close(self) -> None:
        """Free the cache and the working buffers."""
        native = self._native
        del self._native
        native.close()
        self._batch.close()
        engine.return_memory()
