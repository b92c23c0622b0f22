"""Sequences as bytes: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.backends.reference import state
from llmcore.backends.reference.model import ReferenceModel
from llmcore.errors import StateError

from .kit import TEXT, feed, llama, load, opened, same

ORIGIN = state.Origin(model=bytes(range(16)), kv_type_k="f32", kv_type_v="f16")


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_round_trip(models: dict[str, ReferenceModel], name: str) -> None:
    """A sequence goes on from its bytes in another context, in another slot."""
    with opened(models[name]) as context:
        feed(context, TEXT[:10])
        saved = context.save_state(0)
        found = feed(context, TEXT[10:], at=10)
    with opened(models[name], sequences=2, context_size=64) as context:
        feed(context, TEXT[5:], 1)
        context.load_state(1, saved)

        assert context.save_state(1) == saved
        same(feed(context, TEXT[10:], 1, at=10), found)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_empty(models: dict[str, ReferenceModel], name: str) -> None:
    """An empty sequence has a state too."""
    with opened(models[name]) as context:
        empty = context.save_state(0)
        feed(context, TEXT)
        context.load_state(0, empty)

        assert context.bounds(0) == (-1, -1)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_too_long(models: dict[str, ReferenceModel], name: str) -> None:
    """A state that a sequence has no room for is refused, and changes nothing."""
    with opened(models[name]) as context:
        feed(context, TEXT)
        saved = context.save_state(0)
    with opened(models[name], context_size=16) as context:
        feed(context, TEXT[:3])
        with pytest.raises(StateError, match="24 tokens but a sequence here holds 16"):
            context.load_state(0, saved)

        assert context.bounds(0)[1] == 2


@given(data=st.data())
def test_damage(data: st.DataObject) -> None:
    """Bytes with any byte changed, or cut anywhere, are refused."""
    saved = bytearray(state.seal(ORIGIN, b"some bytes of a cache"))
    place = data.draw(st.integers(0, len(saved) - 1))
    if data.draw(st.booleans()):
        del saved[place:]
    else:
        saved[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(StateError, match="cannot load state"):
        state.unseal(bytes(saved), ORIGIN)


@pytest.mark.parametrize("name", ["llama", "mamba"])
@pytest.mark.parametrize("change", [b"\0", b"\xff" * 8])
def test_other_shape(
    models: dict[str, ReferenceModel], name: str, change: bytes
) -> None:
    """Whole bytes of another shape are refused as well."""
    with opened(models[name]) as context:
        feed(context, TEXT)
        payload = state.unseal(context.save_state(0), context._origin)
        other = state.seal(context._origin, bytes(payload) + change)

        with pytest.raises(StateError, match="of another shape"):
            context.load_state(0, other)


@pytest.mark.parametrize("field", ["kv_type_k", "kv_type_v"])
def test_other_types(models: dict[str, ReferenceModel], field: str) -> None:
    """A state of a cache of another type is refused, saying which."""
    with opened(models["llama"]) as context:
        saved = context.save_state(0)
    with (
        opened(models["llama"], **{field: "f16"}) as context,
        pytest.raises(StateError, match=f"another {field}"),
    ):
        context.load_state(0, saved)


def test_other_model(models: dict[str, ReferenceModel], tmp_path: Path) -> None:
    """A state of a model of the same shape but with other weights is refused."""
    with opened(models["llama"]) as context:
        saved = context.save_state(0)
    other = load(llama(tmp_path / "other.gguf", seed=1))
    with (
        opened(other) as context,
        pytest.raises(StateError, match="another model"),
    ):
        context.load_state(0, saved)
