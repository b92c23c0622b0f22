"""What the engine draws is what core would draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llmcore.engine.sampling import Sampler
from llmcore.errors import DecodeError
from llmcore.spi import Batch
from llmcore.values import SamplingParams
from llmcore_conformance import models
from llmcore_cyllama.model import CyllamaModel

if TYPE_CHECKING:
    from conftest import Create, Feed, Load

TEXT = list(range(262, 302))
ROW = len(TEXT) - 1

NAN = float("nan")


def test_greedy(llama: CyllamaModel, create: Create, feed: Feed) -> None:
    """Token after token the greedy choice is the one that core makes."""
    context = create(llama)
    sampler = context.create_sampler(SamplingParams(), 1)
    assert sampler is not None
    core, logits, row = Sampler(SamplingParams()), feed(context, TEXT), ROW
    for _ in range(20):
        token = context.sample(row, sampler)
        assert token == core.sample(logits)
        logits, row = feed(context, [token]), 0
    sampler.close()


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 5.0, "top_k": 0, "top_p": 1.0},
        {"temperature": 2.0},
        {"temperature": 5.0, "top_k": 12, "top_p": 1.0},
        {"temperature": 5.0, "top_k": 0, "top_p": 0.998, "min_p": 0.002},
        {"temperature": 3.0, "top_k": 0, "typical_p": 0.999, "top_p": 1.0},
    ],
)
def test_distribution(
    llama: CyllamaModel, create: Create, feed: Feed, params: dict[str, Any]
) -> None:
    """Tokens come as often as `Sampler.probabilities` says."""
    draws, context = 4000, create(llama)
    logits = feed(context, TEXT)
    expected = Sampler(SamplingParams(**params)).probabilities(logits) * draws
    assert np.count_nonzero(expected) > 1

    sampler = context.create_sampler(SamplingParams(**params), 7)
    assert sampler is not None
    tokens = [context.sample(ROW, sampler) for _ in range(draws)]
    sampler.close()
    counts = np.bincount(tokens, minlength=expected.size)

    assert not counts[expected == 0].any()
    assert surprise(counts, expected) < 4


def surprise(counts: np.ndarray, expected: np.ndarray) -> float:
    """How far off a chi-square is, in standard deviations; rare tokens are pooled."""
    common = expected >= 5
    squares = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = max(1, np.count_nonzero(common) - 1)
    if rare := expected[~common].sum():
        squares += (counts[~common].sum() - rare) ** 2 / rare
        freedom += 1
    return float((squares - freedom) / np.sqrt(2 * freedom))


def test_seeds(llama: CyllamaModel, create: Create, feed: Feed) -> None:
    """The same seed draws the same tokens, another one others."""
    context = create(llama)
    feed(context, TEXT)

    def draw(seed: int) -> list[int]:
        params = SamplingParams(temperature=5.0, top_k=0, top_p=1.0)
        sampler = context.create_sampler(params, seed)
        assert sampler is not None
        tokens = [context.sample(ROW, sampler) for _ in range(30)]
        sampler.close()
        return tokens

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1e-30},
        {"temperature": 1.0, "xtc_probability": 0.5},
        {"temperature": 1.0, "mirostat_tau": 5.0},
        {"repeat_penalty": 1.1},
        {"dry_multiplier": 0.8},
        {"logit_bias": {5: 1.0}},
    ],
)
def test_left_to_core(
    llama: CyllamaModel, create: Create, params: dict[str, Any]
) -> None:
    """What the engine would draw from another distribution is left to core."""
    assert create(llama).create_sampler(SamplingParams(**params), 1) is None


@pytest.fixture(name="broken")
def _broken(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], CyllamaModel]:
    """``broken(value)``: a model whose logits are all ``value`` or NaN."""

    def broken(value: float) -> CyllamaModel:
        write = models.Dense.write

        def spoil(dense: Any, name: str, values: Any) -> None:
            spoilt = (
                np.full(values.shape, value) if name == "output_norm.weight" else values
            )
            write(dense, name, spoilt)

        with monkeypatch.context() as patch:
            patch.setattr(models.Dense, "write", spoil)
            return load(models.tiny_llama(tmp_path / "broken.gguf"))

    return broken


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan(
    broken: Callable[[float], CyllamaModel], create: Create, temperature: float
) -> None:
    """Where the engine computes NaN the error is that of core, not some token."""
    context = create(broken(NAN))
    context.decode(Batch([300], [0], [0], [True]))
    sampler = context.create_sampler(SamplingParams(temperature=temperature), 1)
    assert sampler is not None

    with pytest.raises(DecodeError, match="the logits contain NaN"):
        context.sample(0, sampler)
    sampler.close()


def test_row_without_logits(llama: CyllamaModel, create: Create, feed: Feed) -> None:
    """Sampling a row without output is an error, not the end of the process."""
    context = create(llama)
    feed(context, TEXT)
    sampler = context.create_sampler(SamplingParams(), 1)
    assert sampler is not None

    with pytest.raises(DecodeError, match="row 0"):
        context.sample(0, sampler)
    sampler.close()
