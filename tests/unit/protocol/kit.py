"""What several test modules of the protocol need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import llmcore
from llmcore.spi import Batch

from .conftest import WAIT, Stage


def fresh_answer(
    stage: Stage, prompt: list[int], count: int = 8, **options: Any
) -> Any:
    """What an empty sequence answers: the truth that everything else must repeat."""
    with stage.context() as context, context.get_sequence() as sequence:
        return sequence.generate(prompt, max_tokens=count, **options).result.tokens


def numbers(batch: Batch) -> dict[int, int]:
    """How many tokens of each sequence are in a batch."""
    return {n: list(batch.sequences).count(n) for n in sorted(set(batch.sequences))}


def sequences(stage: Stage, count: int, **params: Any) -> list[llmcore.Sequence]:
    """So many sequences of one new context, numbered from 0."""
    context = stage.context(sequences=count, **params)
    return [stage.keep(context.get_sequence()) for _ in range(count)]


def truthful(sequence: llmcore.Sequence) -> bool:
    """Whether what a sequence says that it holds is what its engine holds."""
    slot = sequence._slot
    context = sequence.context
    with context._use() as native:
        context._engine.cache.settle(native, slot)
        cells = native._cells[slot.number]  # type: ignore[attr-defined]
        held = list(cells.tokens)
        last = native.bounds(slot.number)[1]
    said = sequence.tokens
    window = said[len(said) - len(held) :]  # a sliding window holds the end only
    return (
        sequence.position == len(said) == last + 1
        and held == window
        and bool(held) == bool(said)
    )


def until(true: Callable[[], object]) -> None:
    """Look again and again until something is true."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it does not come true"


def texts(events: Iterable[Any]) -> str:
    return "".join(event.text for event in events)
