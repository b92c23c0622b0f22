"""What core promises about a batch, for all who do not take its word for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from llmcore.backends.null.ledger import ViolationKind
from llmcore.spi import Batch
from llmcore.values import ContextParams


class Fault(NamedTuple):
    """A promise that a batch does not keep, and what is there instead."""

    kind: ViolationKind
    promise: str
    seen: str

    def __str__(self) -> str:
        return f"{self.promise}, got {self.seen}"


def shape_faults(
    batch: Batch, params: ContextParams, vocab_size: int
) -> Iterator[Fault]:
    """
    What is wrong with the size of a batch, its tokens and its sequence numbers.

    Args:
        params: Those of the context that gets it.
    """
    lengths = [len(column) for column in batch]
    count, most = len(batch.tokens), params.batch_size
    if len(set(lengths)) > 1:
        promise = "the columns are of equal length"
        yield Fault(ViolationKind.UNEQUAL_BATCH, promise, f"{lengths}")
    if not count:
        yield Fault(ViolationKind.EMPTY_BATCH, "no batch is empty", "no tokens")
    if count > most:
        promise = f"no batch is longer than {most}"
        yield Fault(ViolationKind.BATCH_SIZE, promise, f"{count} tokens")
    wrong = [token for token in batch.tokens if not 0 <= token < vocab_size]
    if wrong:
        promise = f"tokens are in the vocabulary of {vocab_size}"
        yield Fault(ViolationKind.TOKEN_RANGE, promise, f"{wrong}")
    wrong = [n for n in batch.sequences if not 0 <= n < params.sequences]
    if wrong:
        promise = f"sequence numbers are below {params.sequences}"
        yield Fault(ViolationKind.SEQUENCE_RANGE, promise, f"{wrong}")


def position_faults(
    batch: Batch, next_position: Callable[[int], int | None]
) -> Iterator[Fault]:
    """
    What is wrong with the positions of a batch whose shape is right.

    Args:
        next_position: The one that follows what the cache of a sequence holds; None
            if any may.
    """
    expected = {number: next_position(number) for number in set(batch.sequences)}
    for position, number in zip(batch.positions, batch.sequences, strict=True):
        wanted = expected[number]
        if wanted is not None and position != wanted:
            promise = f"sequence {number} goes on at {wanted}"
            yield Fault(ViolationKind.POSITIONS, promise, f"position {position}")
        expected[number] = position + 1
