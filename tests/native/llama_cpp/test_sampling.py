"""The engine chooses greedily as core does, and core draws from what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import llmcore
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.engine.sampling import Sampler
from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from conftest import MakeRun, Run

TEXT = list(range(262, 302))
ROW = len(TEXT) - 1


@pytest.fixture(name="ready", params=["llama", "smol"])
def _ready(request: pytest.FixtureRequest, run: MakeRun) -> Run:
    context = run(request.getfixturevalue(request.param))
    context.feed(TEXT)
    return context


def greedy(run: Run, row: int = ROW) -> int:
    """What the engine's side chooses."""
    sampler = run.context.create_sampler(SamplingParams(), 1)
    assert sampler is not None
    try:
        return run.context.sample(row, sampler)
    finally:
        sampler.close()


class TestGreedy:
    def test_like_core(self, ready: Run) -> None:
        """Token after token it is the one that core takes."""
        for place in range(len(TEXT), len(TEXT) + 20):
            token = Sampler(SamplingParams()).sample(ready.feed([place], at=place))
            assert token == greedy(ready, 0)

    def test_equals(self, ready: Run) -> None:
        """Of equal logits the lowest number wins, as in core."""
        logits = ready.context.logits(ROW)
        logits[[100, 50, 300]] = logits.max() + 1

        assert greedy(ready) == Sampler(SamplingParams()).sample(logits) == 50

    @pytest.mark.parametrize("token", [0, 77, -1])
    def test_one_nan(self, ready: Run, token: int) -> None:
        """A single NaN is the error that core raises, in its words."""
        ready.context.logits(ROW)[token] = np.nan

        self._fails_like_core(ready, "NaN")

    def test_nothing_left(self, ready: Run) -> None:
        """Nothing but minus infinity is the error that core raises, in its words."""
        ready.context.logits(ROW)[:] = -np.inf

        self._fails_like_core(ready, "every logit is -inf")

    def _fails_like_core(self, ready: Run, words: str) -> None:
        with pytest.raises(DecodeError, match=words) as ours:
            greedy(ready)
        with pytest.raises(DecodeError) as cores:
            Sampler(SamplingParams()).sample(ready.context.logits(ROW))

        assert str(cores.value) == str(ours.value)

    def test_infinite(self, ready: Run) -> None:
        """An infinite logit wins, even with all others forbidden."""
        logits = ready.context.logits(ROW)
        logits[:] = -np.inf
        logits[[9, 7]] = np.inf

        assert greedy(ready) == 7

    def test_row_without_logits(self, ready: Run) -> None:
        """Sampling a row without output is an error, not the end of the process."""
        with pytest.raises(DecodeError, match="row 0"):
            greedy(ready, 0)


class TestWhoSamples:
    @pytest.mark.parametrize(
        "params",
        [
            {"seed": 3},
            {"top_k": 1, "top_p": 0.5, "min_p": 0.5},
            {"typical_p": 0.5, "xtc_probability": 1.0, "mirostat_tau": 5.0},
            {"presence_penalty": 1.0, "penalty_last_n": 0},
            {"dry_multiplier": 1.0, "dry_penalty_last_n": 0},
        ],
    )
    def test_engine(
        self, llama: LlamaCppModel, run: MakeRun, params: dict[str, Any]
    ) -> None:
        """What changes nothing about the greedy choice leaves it to the engine."""
        context = run(llama).context

        assert context.create_sampler(SamplingParams(**params), 1) is not None

    @pytest.mark.parametrize(
        "params",
        [
            {"temperature": 1.0},
            {"temperature": 1e-30},
            {"temperature": 1.0, "top_k": 1},
            {"repeat_penalty": 1.1},
            {"frequency_penalty": 0.1},
            {"presence_penalty": -0.1},
            {"dry_multiplier": 0.8},
            {"logit_bias": {5: 1.0}},
        ],
    )
    def test_core(
        self, llama: LlamaCppModel, run: MakeRun, params: dict[str, Any]
    ) -> None:
        """All else is left to core."""
        context = run(llama).context

        assert context.create_sampler(SamplingParams(**params), 1) is None


# -- through the public API ----------------------------------------------------------


@pytest.fixture(name="sequence", scope="module")
def _sequence(paths: dict[str, Path]) -> Iterator[llmcore.Sequence]:
    with llmcore.get_llama("llama_cpp") as llama:
        context = llama.load_model(paths["llama"]).create_context(
            context_size=256, threads=1
        )
        yield context.get_sequence()


FLAT: dict[str, Any] = {"temperature": 5.0, "top_k": 0, "top_p": 1.0}
"""With this, many tokens of the tiny model are drawn now and then."""


class TestDrawing:
    def test_seed(self, sequence: llmcore.Sequence) -> None:
        """The same seed draws the same answer, another one another."""

        def draw(seed: int) -> tuple[int, ...]:
            stream = sequence.generate(TEXT, seed=seed, max_tokens=30, **FLAT)
            return stream.result.tokens

        assert draw(7) == draw(7)
        assert draw(7) != draw(8)

    def test_told_seed(self, sequence: llmcore.Sequence) -> None:
        """An answer drawn without a seed tells the one that draws it again."""
        result = sequence.generate(TEXT, max_tokens=30, **FLAT).result

        assert result.receipt.sampling.seed is not None
        assert result.tokens == sequence.replay(result.receipt).result.tokens

    @pytest.mark.parametrize(
        "params",
        [
            FLAT,
            {"temperature": 1.0},
            FLAT | {"top_k": 12, "presence_penalty": 1.0},
            FLAT | {"top_p": 0.998, "min_p": 0.002},
        ],
    )
    def test_distribution(
        self, sequence: llmcore.Sequence, params: dict[str, Any]
    ) -> None:
        """Tokens come as often as `Sampler.probabilities` says."""
        draws = 1500
        sequence.clear()
        sequence.evaluate(TEXT)
        core = Sampler(SamplingParams(**params))
        for token in TEXT:
            core.accept(token)
        expected = core.probabilities(sequence.logits) * draws
        assert np.count_nonzero(expected) > 1

        # With these seeds every run of this test draws the same.
        streams = (
            sequence.generate(TEXT, seed=seed, max_tokens=1, ignore_eos=True, **params)
            for seed in range(draws)
        )
        tokens = [stream.result.tokens[0] for stream in streams]
        counts = np.bincount(tokens, minlength=expected.size)

        assert not counts[expected == 0].any()
        assert surprise(counts, expected) < 4


def surprise(counts: np.ndarray, expected: np.ndarray) -> float:
    """How far off a chi-square is, in standard deviations; rare tokens are pooled."""
    common = expected >= 5
    squares = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = np.count_nonzero(common) - 1
    if rare := expected[~common].sum():
        squares += (counts[~common].sum() - rare) ** 2 / rare
        freedom += 1
    return float((squares - freedom) / np.sqrt(2 * freedom))
