"""Batches of several sequences: their order, and what is left when one fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.backends.llama_cpp.native import C
from llmcore.errors import DecodeAbortedError
from llmcore.spi import Batch
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from conftest import Logits, MakeRun, Run

KINDS = ["llama", "sliding", "recurrent", "hybrid"]
EXACT = {"kv_type_k": "f32", "kv_type_v": "f32", "flash_attention": False}
STEPS = {"context_size": 1024, "batch_size": 64, "micro_batch_size": 8}


def text(sequence: int, count: int) -> list[int]:
    """Tokens that no other sequence has."""
    return [262 + (17 * sequence + 3 * n * n) % 61 for n in range(count)]


def batch_of(rows: list[tuple[int, int, int]]) -> Batch:
    """Of (token, position, sequence), each with an output."""
    tokens, positions, sequences = map(list, zip(*rows, strict=True))
    return Batch(tokens, positions, sequences, [True] * len(rows))


def close(found: Logits, expected: Logits) -> None:
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)


class Asks:
    """Counts how often the engine asks whether to stop; says yes at the last."""

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self._last = last

    def __call__(self, data: object) -> bool:
        self.count += 1
        return self.count == self._last


@contextmanager
def stopping(one: Run, last: int | None = None) -> Iterator[Asks]:
    """Make the engine stop when it asks for the ``last`` time."""
    asks = Asks(last)
    callback = C.ggml_abort_callback(asks)
    C.llama_set_abort_callback(one.context._handle, callback, None)
    try:
        yield asks
    finally:
        one.context._allow_abort(True)


@pytest.fixture(name="model", params=KINDS)
def _model(
    models: dict[str, LlamaCppModel], request: pytest.FixtureRequest
) -> LlamaCppModel:
    return models[request.param]


ROWS = [(7, 0, 3), (280, 0, 1), (290, 1, 3), (270, 0, 0), (281, 1, 1), (291, 2, 3)]


class TestOrder:
    def test_logits(self, model: LlamaCppModel, run: MakeRun) -> None:
        """Rows in any order of their sequences have their own logits."""
        one = run(model, sequences=4, **EXACT)
        one.context.decode(batch_of(ROWS))

        for row, tokens in ((3, [270]), (4, [280, 281]), (5, [7, 290, 291])):
            expected = run(model, **EXACT).feed(tokens)
            close(one.context.logits(row), expected)
            sampler = one.context.create_sampler(SamplingParams(), 1)
            assert sampler is not None
            assert one.context.sample(row, sampler) == expected.argmax()

    def test_next_batch(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """The order of one batch means nothing to the next."""
        one = run(llama, sequences=4, **EXACT)
        one.context.decode(batch_of(ROWS))

        close(one.feed([271], at=1), run(llama, **EXACT).feed([270, 271]))
        one.context.decode(batch_of([(272, 2, 0), (282, 2, 1)]))
        close(one.context.logits(0), run(llama, **EXACT).feed([270, 271, 272]))

    def test_is_the_engines(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """Rows out of order are computed together as those in order are."""
        counts = []
        for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
            one = run(llama, sequences=4)
            with stopping(one) as asks:
                one.context.decode(batch_of([(300, 0, n) for n in order]))
            counts.append(asks.count)

        assert counts[0] == counts[1]

    def test_states_change_places(
        self, models: dict[str, LlamaCppModel], run: MakeRun
    ) -> None:
        """States that the engine moves out of the way of a batch are as before."""
        one = run(models["recurrent"], sequences=4, **EXACT)
        texts = {n: text(n, 10 + n) for n in (2, 1, 0, 3)}
        for sequence, tokens in texts.items():
            one.feed(tokens, sequence)
        one.context.decode(batch_of([(300, 12, 2), (300, 13, 3)]))

        for sequence, tokens in texts.items():
            tokens = [*tokens, 300] if sequence > 1 else tokens
            expected = run(models["recurrent"], **EXACT).feed([*tokens, 299])
            close(one.feed([299], sequence, at=len(tokens)), expected)


# What the sequences hold, in the order in which they got it, and what a batch adds.
MIXES: list[tuple[dict[int, int], dict[int, int]]] = [
    ({0: 20, 1: 10, 2: 15, 3: 5}, {0: 12, 2: 30}),
    ({0: 20, 1: 10, 2: 15}, {0: 1, 1: 1, 3: 30}),
    ({0: 20, 3: 100}, {3: 30}),
    ({2: 80, 1: 10, 0: 15, 3: 9}, {2: 30, 3: 3, 0: 1}),
    ({0: 400, 1: 70}, {0: 20, 1: 20}),
]


class Mix:
    """A context with some sequences, and a batch for some of them."""

    def __init__(
        self, one: Run, before: Mapping[int, int], added: Mapping[int, int]
    ) -> None:
        self.run = one
        self.before = before
        self.texts = {
            n: text(n, before.get(n, 0) + added.get(n, 0)) for n in {**before, **added}
        }
        for sequence, count in before.items():
            one.feed(self.texts[sequence][:count], sequence)
        self.batch = batch_of(
            [
                (self.texts[n][at], at, n)
                for n, count in added.items()
                for at in range(before.get(n, 0), before.get(n, 0) + count)
            ]
        )

    def held(self, sequence: int) -> int:
        return self.run.context.bounds(sequence)[1] + 1


@pytest.mark.parametrize(("before", "added"), MIXES)
@pytest.mark.parametrize("tenths", range(10))
def test_aborted(
    model: LlamaCppModel,
    run: MakeRun,
    before: dict[int, int],
    added: dict[int, int],
    tenths: int,
) -> None:
    """Wherever a batch of several parts is aborted, the bounds are what can be used."""
    whole, mix = (
        Mix(run(model, sequences=4, **EXACT, **STEPS), before, added) for _ in range(2)
    )
    with stopping(whole.run) as asks:
        whole.run.context.decode(whole.batch)
    last = max(1, asks.count * tenths // 10)
    with stopping(mix.run, last), pytest.raises(DecodeAbortedError):
        mix.run.context.decode(mix.batch)

    for sequence, tokens in mix.texts.items():
        count = mix.held(sequence)
        if sequence not in added:  # untouched, or gone where it may be damaged
            assert count in (before[sequence], 0)
        fresh = run(model, **EXACT, **STEPS)
        expected = fresh.feed([*tokens[:count], 300])
        close(mix.run.feed([300], sequence, at=count), expected)


@pytest.mark.parametrize("name", ["llama", "sliding"])
def test_neighbours_stay(
    models: dict[str, LlamaCppModel], run: MakeRun, name: str
) -> None:
    """A cache of single tokens loses no more than the part that was running."""
    whole, mix = (
        Mix(
            run(models[name], sequences=4, **EXACT, **STEPS),
            {0: 20, 1: 10, 3: 5},
            {0: 1, 1: 1, 2: 30},
        )
        for _ in range(2)
    )
    with stopping(whole.run) as asks:
        whole.run.context.decode(whole.batch)
    with stopping(mix.run, asks.count), pytest.raises(DecodeAbortedError):
        mix.run.context.decode(mix.batch)

    held = [mix.held(sequence) for sequence in range(4)]
    assert (held[:2], held[3]) == ([21, 11], 5)
    assert 0 < held[2] < 30


@pytest.mark.parametrize("name", ["recurrent", "hybrid"])
def test_states_go(models: dict[str, LlamaCppModel], run: MakeRun, name: str) -> None:
    """
    States are gone when a batch for several of them is aborted, all of the context.

    One that is not in the batch may have been on its way to another place.
    """
    one = run(models[name], sequences=4, **EXACT, **STEPS)
    mix = Mix(one, {0: 20, 1: 10, 2: 5}, {0: 1, 2: 1})
    with stopping(one, 1), pytest.raises(DecodeAbortedError):
        one.context.decode(mix.batch)

    assert [mix.held(sequence) for sequence in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["recurrent", "hybrid"])
def test_state_goes_alone(
    models: dict[str, LlamaCppModel], run: MakeRun, name: str
) -> None:
    """The state of a single sequence moves no other, and goes alone."""
    one = run(models[name], sequences=4, **EXACT, **STEPS)
    mix = Mix(one, {0: 20, 1: 10, 2: 5}, {1: 30})
    with stopping(one, 1), pytest.raises(DecodeAbortedError):
        one.context.decode(mix.batch)

    assert [mix.held(sequence) for sequence in range(4)] == [20, 0, 5, 0]
