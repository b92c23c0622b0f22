"""The child is not trusted: what it may not say is never believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmcore.errors import BackendCrashedError
from llmcore.isolation import IsolatedBackend
from llmcore.spi import BackendContext, Batch
from llmcore.values import ContextParams, ModelParams, SamplingParams

from .conftest import Engine

BAD = ord("!")


def context_of(backend: IsolatedBackend) -> BackendContext:
    model = backend.load_model(None, ModelParams(), lambda share: True)
    return model.create_context(ContextParams(context_size=64))


def decode(context: BackendContext, *tokens: int) -> None:
    count = len(tokens)
    context.decode(
        Batch(tokens, range(count), [0] * count, [False] * (count - 1) + [True])
    )


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        ("oversized", "a frame of 1099511627776 bytes"),
        ("garbage", "a frame of 18446744073709551615 bytes"),
        ("no_message", "malformed"),
        ("twice", "more than one reply"),
        ("late", "the reply to call 1 when 3 is running"),
    ],
)
def test_frames(engine: Engine, factory: str, what: str) -> None:
    """What is no reply to this call ends the child that sent it."""
    context = context_of(engine(factory))

    decode(context, BAD)

    with pytest.raises(
        BackendCrashedError, match=f"malformed reply to 'bounds'.*{what}"
    ):
        context.bounds(0)
    context.close()


def test_torn(engine: Engine) -> None:
    """A reply that ends in the middle is the end of the child."""
    context = context_of(engine("torn"))

    decode(context, BAD)

    with pytest.raises(BackendCrashedError, match="closed its connection and was kill"):
        context.bounds(0)
    context.close()


def sample(context: BackendContext) -> object:
    decode(context, 65)
    sampler = context.create_sampler(SamplingParams(), 0)
    assert sampler is not None
    return context.sample(0, sampler)


CALLS: list[tuple[str, Callable[[Any], object], str]] = [
    ("impossible_token", sample, "a token 1099511627776 of"),
    ("impossible_bounds", lambda c: c.bounds(0), r"bounds \(3, 1\) of 64"),
    ("textual_bounds", lambda c: c.bounds(0), "Expected `array`, got `str`"),
    ("negative_memory", lambda c: c.memory(), "less than no memory"),
    ("numeric_state", lambda c: c.save_state(0), "Expected `bytes`, got `int`"),
]


@pytest.mark.parametrize(("factory", "call", "what"), CALLS)
def test_results(
    engine: Engine, factory: str, call: Callable[[Any], object], what: str
) -> None:
    """A result of a wrong type, or out of range, ends the child that sent it."""
    context = context_of(engine(factory))

    with pytest.raises(BackendCrashedError, match=f"malformed reply to .*{what}"):
        call(context)
    context.close()


@pytest.mark.parametrize(
    ("factory", "call"),
    [
        ("negative_token", lambda model: model.tokenize(b"a")),
        ("textual_piece", lambda model: model.piece(3)),
    ],
)
def test_model(engine: Engine, factory: str, call: Callable[[Any], object]) -> None:
    """What a child says about its model is looked at in the same way."""
    model = engine(factory).load_model(None, ModelParams(), lambda share: True)

    with pytest.raises(BackendCrashedError, match="sent a malformed reply"):
        call(model)


def test_errors(engine: Engine) -> None:
    """So is an error that does not exist."""
    context = context_of(engine("unknown_error"))

    with pytest.raises(BackendCrashedError, match="no such error: 'NoSuchError'"):
        decode(context, 65)
    context.close()


def test_afterwards(engine: Engine) -> None:
    """A child that lied once is not asked again."""
    backend = engine("impossible_bounds")
    context = context_of(backend)
    with pytest.raises(BackendCrashedError):
        context.bounds(0)

    with pytest.raises(BackendCrashedError, match="bounds"):
        backend.devices()
    context.close()
