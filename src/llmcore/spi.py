"""
The seam: what a backend implements, and all that core knows of one.

Core keeps these promises, so that a backend can be thin:

- `close` is called exactly once, contexts before their model, models before the
  backend, and never while another call on the same object is running;
- two calls never overlap within the exclusion scope that `BackendInfo` declares;
  `BackendContext.abort` is the one method that is called while another runs;
- positions are consecutive, token numbers and sequence numbers are in range, and no
  batch is empty or longer than ``batch_size``;
- an operation behind a capability that is not declared is never called.

In return a backend raises only `llmcore.errors` on purpose (anything else becomes
`BackendError` with the original as its cause), holds no reference to core's objects,
and starts nothing at import time.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmcore.errors import CapabilityError
from llmcore.values import (
    ContextMemory,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
    SamplingParams,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[float], bool]
"""Called with the share loaded, 0.0 to 1.0; returning False cancels the load."""


class Batch(NamedTuple):
    """
    One step for the engine: four parallel sequences of equal length, 1 or more.

    Attributes:
        tokens: Token numbers, ``0 <= token < vocab_size``.

        positions: Of each token in its sequence; consecutive within a sequence and
            starting right after what the cache holds.

        sequences: Sequence number of each token, ``0 <= n < sequences``.

        outputs: Whether logits (or embeddings) are wanted for that row.
    """

    tokens: Sequence[int]
    positions: Sequence[int]
    sequences: Sequence[int]
    outputs: Sequence[bool]


class Backend(abc.ABC):
    """One independent instance of an engine; lives as long as a `Llama`."""

    @abc.abstractmethod
    def devices(self) -> Sequence[Device]:
        """The processors this build can use, with memory as it is now. Any thread."""

    @abc.abstractmethod
    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> BackendModel:
        """
        Load a model. Called from any thread, several at once.

        Args:
            path: An existing file whose header core has validated, or None for a
                backend that declares no file format.

            params: Already validated.

            progress: Call it now and then, at least with 0.0 and 1.0; stop and raise
                `OperationCancelledError` if it returns False, even at 1.0.

        Raises:
            ModelLoadError: With nothing left behind.

            InsufficientMemoryError: The same, for lack of memory.

            OperationCancelledError: With nothing left behind.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free the instance. All its models are closed already."""


class BackendModel(abc.ABC):
    """Loaded weights and vocabulary; shared by its contexts."""

    @property
    @abc.abstractmethod
    def info(self) -> ModelInfo:
        """The facts about the model; the same object every time."""

    @abc.abstractmethod
    def tokenize(self, text: bytes) -> list[int]:
        """
        Turn UTF-8 text into tokens. Any thread, several at once.

        Plain text only: adds no begin or end token, and text that looks like a
        control token stays text. Any bytes are allowed, including none.
        """

    @abc.abstractmethod
    def piece(self, token: int) -> bytes:
        """
        The bytes of one token, possibly a part of a character. Any thread.

        A control token has no text: returns ``b""``.
        """

    @abc.abstractmethod
    def create_context(self, params: ContextParams) -> BackendContext:
        """
        Create a context. ``context_size`` is a number here, per sequence.

        Raises:
            ContextCreationError: With nothing left behind and the model usable.

            InsufficientMemoryError: The same, for lack of memory.

            ParameterError: A parameter does not suit this model; names the field.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free the weights. All contexts are closed already."""


class BackendSampler(abc.ABC):
    """A native sampler of one sequence, with its random numbers and its penalties."""

    @abc.abstractmethod
    def accept(self, token: int) -> None:
        """Count a token that was not drawn by this sampler (prompt, forced)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free it. Its context is still open."""


class BackendContext(abc.ABC):
    """A cache for some sequences over one model, and the place where work runs."""

    @property
    @abc.abstractmethod
    def params(self) -> ContextParams:
        """What was really given: sizes rounded by the engine, ``None`` resolved."""

    @abc.abstractmethod
    def decode(self, batch: Batch) -> None:
        """
        Evaluate a batch and append it to the caches of its sequences.

        Raises:
            DecodeAbortedError: `abort` was called. Part of the batch may be applied.

            DecodeError: Part of the batch may be applied; `bounds` tells the truth.
        """

    @abc.abstractmethod
    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last cached position of a sequence; ``(-1, -1)`` if empty."""

    @abc.abstractmethod
    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """
        Empty the cache of one sequence, or of all. Always succeeds.

        Args:
            sequence: Its number, or None for all of them.

            data: Also overwrite the cache's memory (all sequences only).
        """

    @abc.abstractmethod
    def memory(self) -> ContextMemory:
        """The bytes this context uses now."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the context. Never called while another call is inside."""

    # What follows is optional; each method names the capability it belongs to.

    def logits(self, row: int) -> NDArray[np.float32]:
        """
        Logits of one output row of the last batch, shape ``(vocab_size,)`` [logits].

        A view, valid until the next call on this context. ``row`` counts the tokens
        of that batch, and its ``outputs`` was True.
        """
        raise CapabilityError(f"{type(self).__name__} has no logits")

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> BackendSampler | None:
        """
        A native sampler with exactly this meaning [native-sampling].

        Returns:
            None if the engine cannot express these parameters; core samples then.
        """
        return None

    def sample(self, row: int, sampler: BackendSampler) -> int:
        """Draw a token for an output row of the last batch and accept it."""
        raise CapabilityError(f"{type(self).__name__} has no native sampling")

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """
        Remove positions ``start <= p < end`` of a sequence [partial-remove].

        Args:
            end: None means all from ``start`` on.

        Returns:
            False if this cache cannot do it; it is unchanged then. Core verifies the
            answer with `bounds`.
        """
        raise CapabilityError(f"{type(self).__name__} cannot remove a part of a cache")

    def copy(self, source: int, target: int) -> None:
        """Make an empty sequence an independent copy of another [copy]."""
        raise CapabilityError(f"{type(self).__name__} cannot copy a sequence")

    @property
    def can_shift(self) -> bool:
        """Whether this context can shift, if its model declares that [shift]."""
        return True

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        """Add ``delta`` to the positions ``start <= p < end`` [shift]."""
        raise CapabilityError(f"{type(self).__name__} cannot shift positions")

    def save_state(self, sequence: int) -> bytes:
        """The state of one sequence as bytes of its own [state-io]."""
        raise CapabilityError(f"{type(self).__name__} cannot save sequence state")

    def load_state(self, sequence: int, data: bytes) -> None:
        """
        Replace the state of one sequence [state-io].

        Raises:
            StateError: The bytes do not fit; the sequence is empty or unchanged.
        """
        raise CapabilityError(f"{type(self).__name__} cannot load sequence state")

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        """
        Vector of a sequence after the last batch, shape ``(embedding_size,)``, owned
        by the caller, not normalised [embedding].
        """
        raise CapabilityError(f"{type(self).__name__} has no embeddings")

    def abort(self, stop: bool) -> None:
        """
        Make a running `decode` stop as soon as it can, or allow decoding again.

        Any thread, at any time, also while `decode` runs; must not block [abort].
        Without the capability core never calls it and waits for the step to end.
        """
        raise CapabilityError(f"{type(self).__name__} cannot abort an evaluation")
