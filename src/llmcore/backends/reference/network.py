"""What an architecture is: tokens in, vectors out, and a cache of its own make."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llmcore.backends.reference.caches import Cache, Positions
from llmcore.backends.reference.gguf_file import Array, Settings, Weights
from llmcore.backends.reference.numerics import rms_norm
from llmcore.errors import CapabilityError
from llmcore.values import CacheKind


class Part(NamedTuple):
    """The rows of one sequence in a step, oldest first, and what it remembers."""

    rows: NDArray[np.intp]
    cache: Any


class Step(NamedTuple):
    """
    Tokens that are computed together.

    ``check`` is called before each layer; what it raises ends the step.
    """

    tokens: NDArray[np.int64]
    positions: Positions
    parts: Sequence[Part]
    check: Callable[[], None]


class Block(abc.ABC):
    """One layer of a decoder."""

    @abc.abstractmethod
    def __call__(self, x: Array, step: Step, layer: int) -> Array:
        """What goes into the next layer; shapes (rows, embedding)."""


class Network(abc.ABC):
    """One architecture with its weights; never changes, so any thread may use it."""

    kind: ClassVar[CacheKind] = CacheKind.FULL

    @abc.abstractmethod
    def create_cache(self, length: int, types: tuple[DTypeLike, DTypeLike]) -> Cache:
        """An empty memory for a sequence of so many tokens."""

    @abc.abstractmethod
    def hidden(self, step: Step) -> Array:
        """A vector for each row, shape (rows, embedding); caches get their cells."""

    @abc.abstractmethod
    def logits(self, hidden: Array) -> Array:
        """Of the vectors, shape (rows, vocabulary)."""

    def move_keys(self, layer: int, keys: Array, delta: int) -> Array:
        """Keys of shape (key heads, cells, size) as if so many positions further on."""
        raise CapabilityError(f"{type(self).__name__} has no keys to rotate")


class Decoder(Network):
    """
    A stack of blocks between an embedding and its inverse.

    Subclasses set ``blocks``.
    """

    blocks: Sequence[Block]

    def __init__(self, settings: Settings, weights: Weights) -> None:
        vocabulary = len(settings.array("tokenizer.ggml.tokens"))
        width = settings.integer("embedding_length")
        self._epsilon = settings.number("attention.layer_norm_rms_epsilon")
        self._embedding = weights.take("token_embd.weight", vocabulary, width)
        self._norm = weights.take("output_norm.weight", width)
        output = weights.find("output.weight", vocabulary, width)
        self._output = self._embedding if output is None else output  # tied

    def embed(self, tokens: NDArray[np.int64]) -> Array:
        """A vector for each token."""
        return self._embedding[tokens]

    def hidden(self, step: Step) -> Array:
        """The vectors after the last normalisation."""
        x = self.embed(step.tokens)
        for layer, block in enumerate(self.blocks):
            step.check()
            x = block(x, step, layer)
        return rms_norm(x, self._norm, self._epsilon)

    def logits(self, hidden: Array) -> Array:
        """How well each token's vector fits."""
        logits: Array = hidden @ self._output.T
        return logits
