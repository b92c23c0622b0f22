"""What a context held can be evaluated again in an empty one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcore.isolation.history import History
from llmcore.spi import BackendContext, Batch
from llmcore.testing import null_backend
from llmcore.values import ContextParams, ModelParams

SIZE, SEQUENCES, BATCH = 64, 2, 8


def new_context() -> Any:
    model = null_backend().load_model(None, ModelParams(), lambda share: True)
    return model.create_context(
        ContextParams(context_size=SIZE, sequences=SEQUENCES, batch_size=BATCH)
    )


def replayed(history: History) -> Any:
    """A new context after the steps."""
    context = new_context()
    for op, *details in history.steps(BATCH):
        if op == "decode":
            context.decode(Batch(*details))
        else:
            getattr(context, op)(*details)
    return context


def cells(context: Any) -> list[tuple[list[int], list[int]]]:
    return [(list(c.positions), list(c.tokens)) for c in context._cells]


class Both:
    """A context and its history, told the same."""

    def __init__(self) -> None:
        self.context: BackendContext = new_context()
        self.history = History(remembers=True)

    def evaluate(self, sequence: int, tokens: list[int]) -> None:
        start, count = self.context.bounds(sequence)[1] + 1, len(tokens)
        positions = range(start, start + count)
        outputs = [False] * (count - 1) + [True]
        batch = Batch(tokens, positions, [sequence] * count, outputs)
        self.context.decode(batch)
        self.history.decoded(batch)

    def clear(self, sequence: int | None) -> None:
        self.context.clear(sequence)
        self.history.cleared(sequence)

    def remove(self, sequence: int, start: int, end: int | None) -> None:
        if self.context.remove(sequence, start, end):
            self.history.removed(sequence, start, end)

    def move_up(self, sequence: int, start: int, count: int) -> None:
        """Remove some and close the gap, as core does."""
        end = self.context.bounds(sequence)[1] + 1
        if start + count < end:
            self.remove(sequence, start, start + count)
            self.context.shift(sequence, start + count, end, -count)
            self.history.shifted(sequence, start + count, end, -count)

    def copy(self, source: int, target: int) -> None:
        self.clear(target)
        self.context.copy(source, target)
        self.history.copied(source, target)

    def load(self, sequence: int, state: bytes) -> None:
        self.context.load_state(sequence, state)
        self.history.loaded(sequence, state)

    def save(self, sequence: int) -> bytes:
        state = self.context.save_state(sequence)
        self.history.saved(sequence, state)
        return state


numbers = st.integers(0, SEQUENCES - 1)
tokens = st.lists(st.integers(0, 99), min_size=1, max_size=BATCH)
places = st.integers(1, SIZE)
steps = st.one_of(
    st.tuples(st.just("evaluate"), numbers, tokens),
    st.tuples(st.just("clear"), numbers),
    st.tuples(st.just("remove"), numbers, places, st.none()),
    st.tuples(st.just("move_up"), numbers, places, places),
    st.tuples(st.just("copy"), st.just(0), st.just(1)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, max_size=7))
def test_replay(todo: list[tuple[Any, ...]]) -> None:
    """Whatever was done, an empty context comes to hold the same."""
    both = Both()
    for op, *details in todo:
        getattr(both, op)(*details)

    assert cells(replayed(both.history)) == cells(both.context)


def test_outputs() -> None:
    """The last evaluation is repeated as it was, with its outputs."""
    both = Both()
    both.evaluate(0, [1, 2, 3])
    both.evaluate(0, [4, 5])

    again = replayed(both.history)

    assert again.logits(1).tolist() == both.context.logits(1).tolist()


def test_unknown_state() -> None:
    """A state from elsewhere is loaded again, with what came after it."""
    elsewhere = Both()
    elsewhere.evaluate(0, [1, 2, 3])
    both = Both()
    both.load(0, elsewhere.context.save_state(0))
    both.evaluate(0, [4])

    assert cells(replayed(both.history)) == cells(both.context)


def test_shortened_state() -> None:
    """So it is if its end was removed."""
    elsewhere = Both()
    elsewhere.evaluate(0, [1, 2, 3, 4])
    both = Both()
    both.load(0, elsewhere.context.save_state(0))
    both.remove(0, 2, None)
    both.evaluate(0, [9])

    assert cells(replayed(both.history)) == cells(both.context)


def test_known_state() -> None:
    """A state that was saved here is not kept: its tokens are known."""
    both = Both()
    both.evaluate(0, [1, 2, 3])
    state = both.save(0)
    both.clear(0)
    both.load(0, state)

    assert [op for op, *_ in both.history.steps(BATCH)] == ["decode"]
    assert cells(replayed(both.history)) == cells(both.context)


def test_hole() -> None:
    """A sequence with a hole in it, which nothing can fill, stays empty."""
    both = Both()
    both.evaluate(0, [1, 2, 3, 4])
    both.remove(0, 1, 2)

    assert cells(replayed(both.history))[0] == ([], [])


def test_hole_in_a_state() -> None:
    """So does one with a hole in a state whose tokens nobody knows."""
    elsewhere = Both()
    elsewhere.evaluate(0, [1, 2, 3, 4])
    both = Both()
    both.load(0, elsewhere.context.save_state(0))
    both.evaluate(0, [5])
    both.remove(0, 1, 2)

    assert cells(replayed(both.history))[0] == ([], [])


@pytest.mark.parametrize("last", [-1, 0, 2])
def test_failure(last: int) -> None:
    """After a failure the engine's own positions say what is held."""
    both = Both()
    both.evaluate(0, [1, 2, 3])
    both.context.remove(0, last + 1)
    both.history.kept(0, last)

    assert cells(replayed(both.history)) == cells(both.context)
