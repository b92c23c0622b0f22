"""Sequence state as bytes: what comes back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import StateError
from llmcore_conformance.models import tiny_llama

if TYPE_CHECKING:
    from conftest import MakeRun

TEXT = list(range(262, 302))


@pytest.mark.parametrize("name", ["llama", "sliding", "recurrent", "hybrid"])
def test_round_trip(models: dict[str, LlamaCppModel], run: MakeRun, name: str) -> None:
    """A sequence goes on from its bytes in another context, in another slot."""
    source, target = (run(models[name], sequences=2) for _ in range(2))
    source.feed(TEXT)
    target.feed(TEXT[::-1], sequence=1)
    target.context.load_state(1, source.context.save_state(0))

    assert source.context.bounds(0)[1] == target.context.bounds(1)[1]
    np.testing.assert_allclose(
        source.feed([300], at=len(TEXT)),
        target.feed([300], sequence=1, at=len(TEXT)),
        rtol=0.01,
        atol=0.01,
    )


def test_empty(llama: LlamaCppModel, run: MakeRun) -> None:
    """An empty sequence has a state too."""
    context = run(llama)
    empty = context.context.save_state(0)
    context.feed(TEXT)
    context.context.load_state(0, empty)

    assert context.context.bounds(0) == (-1, -1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage(llama: LlamaCppModel, run: MakeRun, data: st.DataObject) -> None:
    """Bytes with any byte changed, or cut anywhere, are refused unseen."""
    context = run(llama)
    context.feed(TEXT)
    state = bytearray(context.context.save_state(0))
    place = data.draw(st.integers(0, len(state) - 1))
    if data.draw(st.booleans()):
        del state[place:]
    else:
        state[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(StateError, match="cannot load state"):
        context.context.load_state(0, bytes(state))
    assert context.context.bounds(0) == (0, 39)


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"sequences": 2}, "another number of sequences"),
        ({"kv_type_k": "f32"}, "another kv_type_k"),
        ({"kv_type_v": "q8_0"}, "another kv_type_v"),
    ],
)
def test_other_context(
    llama: LlamaCppModel, run: MakeRun, params: dict[str, object], why: str
) -> None:
    """A state from a context of another make is refused, saying what differs."""
    state = run(llama).context.save_state(0)

    with pytest.raises(StateError, match=why):
        run(llama, **params).context.load_state(0, state)


def test_other_model(
    llama: LlamaCppModel,
    load: Callable[[Path], LlamaCppModel],
    run: MakeRun,
    tmp_path: Path,
) -> None:
    """A state of a model of the same shape but with other weights is refused."""
    other = load(tiny_llama(tmp_path / "other.gguf", seed=1))
    state = run(llama).context.save_state(0)

    with pytest.raises(StateError, match="another model"):
        run(other).context.load_state(0, state)


def test_smaller_context(llama: LlamaCppModel, run: MakeRun) -> None:
    """A state moves to a context of another size if it has room for it."""
    large = run(llama, context_size=512)
    large.feed([262] * 200)
    small = run(llama, context_size=256)
    small.context.load_state(0, large.context.save_state(0))
    assert small.context.bounds(0) == (0, 199)

    large.feed([262] * 100, at=200)
    with pytest.raises(StateError, match="300 tokens but a sequence here holds 256"):
        small.context.load_state(0, large.context.save_state(0))


def test_other_layout(llama: LlamaCppModel, run: MakeRun) -> None:
    """What only the engine can find wrong leaves the sequence empty."""
    source = run(llama, flash_attention=False)
    source.feed(TEXT)
    target = run(llama, flash_attention=True)
    target.feed(TEXT)

    with pytest.raises(StateError, match="cannot load sequence 0"):
        target.context.load_state(0, source.context.save_state(0))
    assert target.context.bounds(0) == (-1, -1)
