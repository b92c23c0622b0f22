"""Moving positions, and which models allow it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import CapabilityError
from llmcore.values import KV_TYPES, Capability
from llmcore_conformance.models import tiny_llama

if TYPE_CHECKING:
    from conftest import MakeRun

TEXT = list(range(262, 302))
CLOSE = {"rtol": 0.01, "atol": 0.01}
EXACT = {"kv_type_k": "f32", "kv_type_v": "f32", "flash_attention": False}

Load = Callable[[Path], LlamaCppModel]


def test_whole(llama: LlamaCppModel, run: MakeRun) -> None:
    """Positions count only relatively: shifted as a whole, all goes on the same."""
    context = run(llama, kv_type_k="f32")
    context.feed(TEXT)
    context.context.shift(0, 0, len(TEXT), 7)

    assert (7, len(TEXT) + 6) == context.context.bounds(0)
    np.testing.assert_allclose(
        context.feed([300], at=len(TEXT) + 7),
        run(llama, kv_type_k="f32").feed([*TEXT, 300]),
        **CLOSE,
    )


@pytest.mark.parametrize("kept", [0, 1, 10])
def test_after_removal(load: Load, run: MakeRun, tmp_path: Path, kept: int) -> None:
    """
    With a middle removed and the rest moved down, all goes on as without that middle.

    Exactly so with one layer only: deeper ones have seen what was removed.
    """
    model = load(tiny_llama(tmp_path / "flat.gguf", layers=1))
    context = run(model, **EXACT)
    context.feed(TEXT)
    assert context.context.remove(0, kept, kept + 15)
    context.context.shift(0, kept + 15, len(TEXT), -15)

    assert context.context.bounds(0) == (0, 24)
    rest = TEXT[:kept] + TEXT[kept + 15 :]
    np.testing.assert_allclose(
        context.feed([300, 299], at=25),
        run(model, **EXACT).feed([*rest, 300, 299]),
        rtol=1e-3,
        atol=1e-3,
    )


def test_again_and_again(load: Load, run: MakeRun, tmp_path: Path) -> None:
    """A full cache can be shifted and filled for ever."""
    model = load(tiny_llama(tmp_path / "flat.gguf", layers=1))
    context = run(model, context_size=256, **EXACT)
    tokens = [262 + n * n % 61 for n in range(256)]
    context.feed(tokens)
    for _ in range(3):
        assert context.context.remove(0, 4, 132)
        context.context.shift(0, 132, 256, -128)
        tokens = tokens[:4] + tokens[132:] + tokens[:128]
        context.feed(tokens[128:], at=128)

    assert context.context.bounds(0) == (0, 255)
    assert context.context.remove(0, 255)
    np.testing.assert_allclose(
        context.feed([300], at=255),
        run(model, context_size=256, **EXACT).feed([*tokens[:255], 300]),
        rtol=1e-3,
        atol=1e-3,
    )


def test_when_full(llama: LlamaCppModel, run: MakeRun) -> None:
    """A full cache can be shifted."""
    context = run(llama, context_size=256)
    context.feed([262] * 256)
    context.context.remove(0, 10, 20)
    context.feed([263] * 10, at=256)
    context.context.shift(0, 20, 266, -10)

    assert context.context.bounds(0) == (0, 255)


def test_others_stay(llama: LlamaCppModel, run: MakeRun) -> None:
    """Other sequences do not move."""
    context = run(llama, sequences=2, **EXACT)
    context.feed(TEXT)
    context.feed(TEXT, sequence=1)
    context.context.shift(0, 0, len(TEXT), 7)

    np.testing.assert_allclose(
        context.feed([300], sequence=1, at=len(TEXT)),
        run(llama, **EXACT).feed([*TEXT, 300]),
        **CLOSE,
    )


@pytest.mark.parametrize("kind", KV_TYPES)
def test_kv_types(llama: LlamaCppModel, run: MakeRun, kind: str) -> None:
    """Any element type will do for values; keys that get lossy are refused by name."""
    context = run(llama, kv_type_v=kind)
    context.feed(TEXT)
    context.context.shift(0, 0, len(TEXT), 7)
    exact = run(llama, **EXACT).feed([*TEXT, 300])
    logits = context.feed([300], at=len(TEXT) + 7)
    assert np.corrcoef(exact, logits)[0, 1] > 0.95

    context = run(llama, kv_type_k=kind)
    context.feed(TEXT)
    assert context.context.can_shift == (kind in ("f16", "f32"))
    if not context.context.can_shift:
        with pytest.raises(CapabilityError, match=f"kv_type_k='{kind}'"):
            context.context.shift(0, 0, len(TEXT), 7)
        assert context.context.bounds(0) == (0, 39)


def test_is_done_at_once(llama: LlamaCppModel, run: MakeRun) -> None:
    """What is saved right after a shift is shifted."""
    context = run(llama, sequences=2, kv_type_k="f32")
    context.feed(TEXT)
    context.context.shift(0, 0, len(TEXT), 7)
    context.context.load_state(1, context.context.save_state(0))

    np.testing.assert_allclose(
        context.feed([300], sequence=1, at=len(TEXT) + 7),
        run(llama, kv_type_k="f32").feed([*TEXT, 300]),
        **CLOSE,
    )


@pytest.mark.parametrize("name", ["sliding", "recurrent", "hybrid"])
def test_other_caches(
    models: dict[str, LlamaCppModel], run: MakeRun, name: str
) -> None:
    """A cache that cannot shift says so instead of ending the process."""
    assert Capability.SHIFT not in models[name].info.capabilities
    context = run(models[name], context_size=1024)
    context.feed(TEXT)

    assert not context.context.can_shift
    with pytest.raises(CapabilityError, match="cannot shift"):
        context.context.shift(0, 0, len(TEXT), 7)


@pytest.mark.parametrize("name", ["yarn", "smollm3"])
def test_other_rotations(
    models: dict[str, LlamaCppModel], run: MakeRun, name: str
) -> None:
    """Keys that the engine would turn wrongly cannot be shifted."""
    assert Capability.SHIFT not in models[name].info.capabilities
    context = run(models[name])
    context.feed(TEXT)

    assert not context.context.can_shift
    with pytest.raises(CapabilityError, match="cannot shift"):
        context.context.shift(0, 0, len(TEXT), 7)


def test_no_cache(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A context without a cache cannot shift."""
    assert not run(models["embedding"], embeddings=True).context.can_shift


def test_gap_in_a_window(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A middle can be removed from a sliding window, which leaves its bounds."""
    context = run(models["sliding"])
    context.feed(TEXT)

    assert context.context.remove(0, 10, 20)
    assert context.context.bounds(0) == (0, 39)
