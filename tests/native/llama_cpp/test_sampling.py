"""Native samplers mean what `SamplingParams` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.engine.sampling import Sampler
from llmcore.errors import DecodeError
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from conftest import Logits, MakeRun, Run

TEXT = list(range(262, 302))
ROW = len(TEXT) - 1


@pytest.fixture(name="ready")
def _ready(llama: LlamaCppModel, run: MakeRun) -> Run:
    context = run(llama)
    context.feed(TEXT)
    return context


def draw(run: Run, seed: int = 1, times: int = 1, **params: object) -> list[int]:
    """Draw some tokens from the same logits."""
    sampler = run.context.create_sampler(SamplingParams(**params), seed)  # type: ignore[arg-type]
    assert sampler is not None
    tokens = [run.context.sample(ROW, sampler) for _ in range(times)]
    sampler.close()
    return tokens


def test_greedy(ready: Run) -> None:
    """Greedy takes the greatest logit."""
    assert [int(ready.context.logits(ROW).argmax())] == draw(ready)


def test_bias(ready: Run) -> None:
    """A bias is added to the logits; minus infinity forbids."""
    best, second = np.argsort(ready.context.logits(ROW))[::-1][:2]

    assert [second] == draw(ready, logit_bias={int(best): -np.inf})
    assert draw(ready, logit_bias={5: 1000.0}) == [5]


def test_presence_penalty(ready: Run) -> None:
    """A token that was drawn counts as present from then on."""
    best, second = np.argsort(ready.context.logits(ROW))[::-1][:2]

    assert [best, second] == draw(ready, times=2, presence_penalty=50.0)


def test_accepted(ready: Run) -> None:
    """A token that is accepted counts like one that was drawn."""
    best = int(ready.context.logits(ROW).argmax())
    sampler = ready.context.create_sampler(SamplingParams(presence_penalty=50.0), 1)
    assert sampler is not None
    sampler.accept(best)

    assert best != ready.context.sample(ROW, sampler)
    sampler.close()


def test_seed(ready: Run) -> None:
    """The same seed draws the same tokens, another one others."""
    first = draw(ready, seed=7, times=50, temperature=1.0)

    assert first == draw(ready, seed=7, times=50, temperature=1.0)
    assert first != draw(ready, seed=8, times=50, temperature=1.0)


@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 5, "top_p": 1.0},
        {"top_k": 0, "top_p": 0.3},
        {"top_k": 20, "top_p": 0.7},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.2},
    ],
)
def test_kept(ready: Run, params: dict[str, float]) -> None:
    """What is drawn is what top_k, then top_p, then min_p keep."""
    logits = ready.context.logits(ROW).astype(float)
    order = np.argsort(logits)[::-1][: int(params["top_k"]) or None]
    shares = np.exp(logits[order] - logits[order[0]])
    shares /= shares.sum()
    keep = int(np.searchsorted(shares.cumsum(), params["top_p"])) + 1
    order, shares = order[:keep], shares[:keep]
    kept = set(order[shares >= params.get("min_p", 0.0) * shares[0]].tolist())

    drawn = draw(ready, times=2000, temperature=5.0, **params)
    assert kept == set(drawn)


DRAWS = 8000


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 0, "top_p": 1.0},
        {"top_k": 0, "top_p": 1.0, "temperature": 0.5},
        {"top_k": 12, "top_p": 1.0, "temperature": 1.5},
        {"top_k": 0, "top_p": 0.6},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.2},
        {"top_k": 50, "top_p": 0.9, "min_p": 0.2, "temperature": 2.0},
    ],
)
def test_distribution(ready: Run, params: dict[str, float], seed: int) -> None:
    """It draws from the distribution that core draws from."""
    values = ready.context.logits(ROW).copy()
    best = np.argsort(values)[-60:]  # a bias makes many tokens about as likely
    bias = dict(zip(best.tolist(), (-0.7 * values[best]).tolist(), strict=True))
    params = {"temperature": 1.0, "logit_bias": bias} | params
    core = Sampler(SamplingParams(**params), seed)
    expected = core.probabilities(values) * DRAWS
    assert np.count_nonzero(expected) > 5

    counts = np.bincount(draw(ready, seed, DRAWS, **params), minlength=values.size)

    assert not counts[expected == 0].any()
    assert surprise(counts, expected) < 4


def surprise(counts: Logits, expected: Logits) -> float:
    """How far off a chi-square is, in standard deviations; rare tokens are pooled."""
    common = expected >= 5
    squares = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = np.count_nonzero(common) - 1
    if rare := expected[~common].sum():
        squares += (counts[~common].sum() - rare) ** 2 / rare
        freedom += 1
    return float((squares - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize(
    "params",
    [
        {"repeat_penalty": 1.3},
        {"frequency_penalty": 0.4, "penalty_last_n": 7},
        {"presence_penalty": 1.1, "logit_bias": {300: 6.0, 301: 6.5}},
        {"repeat_penalty": 0.9, "frequency_penalty": 0.3, "presence_penalty": -0.2},
        {"presence_penalty": 1.0, "logit_bias": {270: np.inf, 271: -np.inf}},
        {"typical_p": 0.5, "xtc_probability": 1.0, "mirostat_tau": 5.0},
    ],
)
def test_greedy_like_core(ready: Run, params: dict[str, object]) -> None:
    """Greedy with bias and penalties takes the tokens that core takes."""
    values = ready.context.logits(ROW).copy()
    core = Sampler(SamplingParams(**params))  # type: ignore[arg-type]

    expected = [core.sample(values) for _ in range(60)]

    assert expected == draw(ready, times=60, **params)


@pytest.mark.parametrize(
    ("params", "seed"),
    [
        ({"temperature": 1.0, "typical_p": 0.9}, 1),
        ({"temperature": 1.0, "xtc_probability": 0.5}, 1),
        ({"temperature": 1.0, "mirostat_tau": 5.0}, 1),
        ({"dry_multiplier": 0.8}, 1),
        ({"logit_bias": {2**20: 1.0}}, 1),
        ({"temperature": 1.0, "logit_bias": {5: np.inf}}, 1),
        ({"logit_bias": dict.fromkeys(range(5000), -np.inf)}, 1),
        ({"repeat_penalty": 1e-30}, 1),
        ({"temperature": 1.0}, 2**32 - 1),
        ({"temperature": 1e-30}, 1),
        ({"presence_penalty": 1.0, "penalty_last_n": 2**31 - 1}, 1),
    ],
)
def test_not_expressible(ready: Run, params: dict[str, object], seed: int) -> None:
    """Where the engine would do something else, core has to sample."""
    assert ready.context.create_sampler(SamplingParams(**params), seed) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}])
def test_row_without_logits(ready: Run, params: dict[str, float]) -> None:
    """Sampling a row without output is an error, not the end of the process."""
    sampler = ready.context.create_sampler(SamplingParams(**params), 1)  # type: ignore[arg-type]
    assert sampler is not None

    with pytest.raises(DecodeError, match="row 0"):
        ready.context.sample(0, sampler)
    sampler.close()
