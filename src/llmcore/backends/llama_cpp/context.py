"""A native context: the caches of some sequences, and where the work runs."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from llmcore.backends.llama_cpp import logs, native, state
from llmcore.backends.llama_cpp.batch import NativeBatch
from llmcore.backends.llama_cpp.native import C, get_embedding, get_logits
from llmcore.backends.llama_cpp.rules import (
    KV_TYPE_NUMBERS,
    POSITION_TABLES,
    SHIFTED_TYPES,
    usage,
    window,
)
from llmcore.backends.llama_cpp.sampler import best_token, create
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMPTY = (-1, -1)
NO_SLOT, ABORTED = 1, 2
RESTORED = (NO_SLOT, -1)
"""After these the cache is as it was before."""
CODES = {
    NO_SLOT: "no free place in the cache for the batch",
    ABORTED: "aborted",
    -1: "the engine found the batch invalid",
    -2: "the engine could not allocate or prepare what the batch needs",
    -3: "the computation failed",
}

SPARSE = 8
"""A cache less full than one part in this is copied faster as bytes."""

# ggml asks `bool abort(void *data)` before each node of its graph, on its own threads.
# A Python function there would take the GIL thousands of times a second, and crash when
# asked while the interpreter ends. `strlen(const char *)` has a compatible shape: one
# pointer in, and the caller of a `bool` function reads the lowest byte of the register
# in which an integer is returned, on all ABIs that ggml runs on. So "" means go on, and
# a text of length 1 means stop; one byte is written in one store, which cannot tear.
GO, STOP = b"\0", b"\1"
_ask = native.process_function("strlen")


class LlamaCppContext(BackendContext):
    """Lives until `close`; owns the native context it is given."""

    def __init__(
        self,
        handle: int,
        params: ContextParams,
        info: ModelInfo,
        lines: list[logs.Line],
    ) -> None:
        self._handle = handle
        self._memory = C.llama_get_memory(handle)
        self._params = params
        self._info = info
        self._window = window(info)
        self._usage = usage(lines)
        self._batch = NativeBatch(params.batch_size, output_all=params.embeddings)
        self._rows = 0
        self._copies_pending = False
        self._run = C.llama_decode if self._memory else C.llama_encode
        self._logits: Any = ctypes.c_float * info.vocab_size
        self._origin = state.Origin(
            format=C.LLAMA_STATE_SEQ_VERSION,
            model=bytes.fromhex(info.fingerprint),
            kv_type_k=KV_TYPE_NUMBERS[params.kv_type_k],
            kv_type_v=KV_TYPE_NUMBERS[params.kv_type_v],
            sequences=params.sequences,
        )
        self._stop = ctypes.create_string_buffer(GO, 2)
        self._allow_abort(True)

    @property
    def _copies_later(self) -> bool:
        """Whether pending copies can be done at any time without harm."""
        kinds = (CacheKind.FULL, CacheKind.SLIDING_WINDOW)  # no state to go astray
        table = self._info.architecture in POSITION_TABLES  # no position beyond it
        return self._info.cache_kind in kinds and not table

    @property
    def params(self) -> ContextParams:
        """What was really given."""
        return self._params

    # -- evaluating ------------------------------------------------------------------

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch."""
        self._batch.fill(batch)
        code = self._run(self._handle, self._batch.raw)
        if code:
            self._rows = 0
            self._forget_half_done(code, batch)
            _raise(code)
        self._rows = self._batch.raw.n_tokens
        self._copies_pending = False

    def _forget_half_done(self, code: int, batch: Batch) -> None:
        # A recurrent state cannot be taken back: the engine counts the aborted tokens
        # as done although the state may be anything. Empty is the truth that is left.
        # For several sequences it also puts their states side by side, in place of
        # those of others, whose new places are then only on paper.
        if code in RESTORED or Capability.PARTIAL_REMOVE in self._info.capabilities:
            return
        sequences = set(batch.sequences)
        self.clear(sequences.pop() if len(sequences) == 1 else None)

    def abort(self, stop: bool) -> None:
        """Write one byte, which the engine reads between two operations."""
        self._stop[0] = STOP if stop else GO

    def _allow_abort(self, allowed: bool) -> None:
        function = ctypes.cast(_ask, C.ggml_abort_callback) if allowed else None
        C.llama_set_abort_callback(
            self._handle, function or C.ggml_abort_callback(), self._stop
        )

    def logits(self, row: int) -> NDArray[np.float32]:
        """A view of the engine's own memory."""
        address = get_logits(self._handle, self._output(row))
        if not address:
            raise DecodeError(f"the engine has no logits for row {row}")
        return np.frombuffer(self._logits.from_address(address), np.float32)

    def _output(self, row: int) -> int:
        """Where the engine has a row; asked for another, it would end the process."""
        if 0 <= row < self._rows:
            place = self._batch.rows[row]
            if self._batch.outputs[place]:
                return place
        raise DecodeError(f"row {row} of the last batch has no logits")

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> BackendSampler | None:
        """For greedy choice among the logits as they are; core does all else."""
        return create(params)

    def sample(self, row: int, sampler: BackendSampler) -> int:
        """
        The token of the largest logit, looked up in the engine's own memory.

        Its own greedy sampler takes over ten times as long, as it first copies each
        logit into a structure, and does not notice NaN.
        """
        return best_token(self.logits(row))

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        """The pooled vector of a sequence."""
        address = get_embedding(self._handle, sequence) if self._rows else None
        if not address:
            raise DecodeError(f"sequence {sequence} has no embedding in the last batch")
        vector = (ctypes.c_float * self._info.embedding_size).from_address(address)
        return np.array(vector, np.float32)

    # -- the cache -------------------------------------------------------------------

    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last position that the engine has."""
        if not self._memory:
            return EMPTY
        return (
            C.llama_memory_seq_pos_min(self._memory, sequence),
            C.llama_memory_seq_pos_max(self._memory, sequence),
        )

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """Forget one sequence or all."""
        if not self._memory:
            return
        if sequence is None:
            C.llama_memory_clear(self._memory, data)
        else:
            C.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """
        Remove positions, unless what must stay has already left a sliding window.

        The engine says True to such a removal too, and then computes nonsense.
        """
        if not self._memory:
            return False
        if self._window and start > 0:
            first, last = self.bounds(sequence)
            if start <= last and first > max(0, start - self._window):
                return False
        removed: bool = C.llama_memory_seq_rm(
            self._memory, sequence, start, -1 if end is None else end
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
            C.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        elif self._copies_later and length * SPARSE > capacity:
            C.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._copies_pending = True
        else:
            self._write_state(target, self._read_state(source))

    @property
    def can_shift(self) -> bool:
        """Whether model, cache and the type of its keys all allow it."""
        return (
            Capability.SHIFT in self._info.capabilities
            and self._params.kv_type_k in SHIFTED_TYPES
            and bool(C.llama_memory_can_shift(self._memory))
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
        C.llama_memory_seq_add(self._memory, sequence, start, end, delta)
        self._do_pending(sequence)

    def _do_pending(self, sequence: int) -> None:
        """Make the engine do what it has noted, by a token that is removed again."""
        position = self.bounds(sequence)[1] + 1
        self._rows = 0
        self._batch.fill(Batch([0], [position], [sequence], [False]))
        self._allow_abort(False)
        code = C.llama_decode(self._handle, self._batch.raw)
        self._allow_abort(True)
        if code == 0:
            C.llama_memory_seq_rm(self._memory, sequence, position, -1)
        elif code != NO_SLOT:  # a place is looked for after all is done
            _raise(code)
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

    def _read_state(self, sequence: int) -> bytearray:
        if self._copies_pending:
            self._do_pending(sequence)
        data = bytearray(C.llama_state_seq_get_size(self._handle, sequence))
        target = (ctypes.c_uint8 * len(data)).from_buffer(data)
        with logs.captured() as lines:
            done = C.llama_state_seq_get_data(self._handle, target, len(data), sequence)
        if done != len(data):
            raise StateError(f"cannot save sequence {sequence}: {logs.reason(lines)}")
        return data

    def _write_state(self, sequence: int, data: bytearray | memoryview) -> None:
        if self._copies_pending:
            self._do_pending(sequence)
        self.clear(sequence)  # the engine itself keeps it if the state is an empty one
        source = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        with logs.captured() as lines:
            done = C.llama_state_seq_set_data(self._handle, source, len(data), sequence)
        if not done:
            self.clear(sequence)
            raise StateError(f"cannot load sequence {sequence}: {logs.reason(lines)}")

    # -- the end ---------------------------------------------------------------------

    def memory(self) -> ContextMemory:
        """What the engine reported when it made the context."""
        return self._usage

    def close(self) -> None:
        """Free the cache and the working buffers."""
        handle = self._handle
        del self._handle, self._memory
        C.llama_free(handle)
        native.return_memory()


def _raise(code: int) -> NoReturn:
    kind = DecodeAbortedError if code == ABORTED else DecodeError
    raise kind(f"decode failed: {CODES.get(code, 'fatal error')} (code {code})")
