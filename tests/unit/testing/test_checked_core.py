"""A checked backend refuses what core must never do, before the engine hears of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmcore.errors import DecodeError
from llmcore.spi import Batch
from llmcore.testing import ContractError, NullScript, checked, null_backend
from llmcore.values import (
    BackendInfo,
    Capability,
    ContextParams,
    ModelParams,
    SamplingParams,
)

from .conftest import Checked, Make, batch

ALL = frozenset(Capability)


# -- lives ---------------------------------------------------------------------------


def test_use_after_close(one: Checked) -> None:
    """Nothing is called after `close`."""
    one.context.close()

    one.assert_broken("core", "BackendContext.bounds", lambda: one.context.bounds(0))


def test_closed_once(one: Checked) -> None:
    """`close` comes once."""
    one.context.close()

    one.assert_broken("core", "BackendContext.close", one.context.close)


@pytest.mark.parametrize("parent", ["engine", "model"])
def test_children_first(one: Checked, parent: str) -> None:
    """Nothing is closed before what lives on it."""
    one.feed()
    method = {"engine": "Backend.close", "model": "BackendModel.close"}[parent]

    one.assert_broken("core", method, getattr(one, parent).close)
    one.context.memory()  # it was not freed


def test_live(one: Checked) -> None:
    """What was not closed yet is counted."""
    one.feed()
    one.context.close()

    assert one.engine.live == {"backend": 1, "model": 1}


# -- calls that overlap --------------------------------------------------------------


def held_inside(one: Checked, work: Callable[[], Any]) -> None:
    """Do some work while the first context is inside of `decode`."""
    one.context.bounds(0)
    with ThreadPoolExecutor(1) as pool, one.script.gate("decode") as gate:
        decoding = pool.submit(one.feed)
        gate.wait_entered()
        work()
        gate.open()
        decoding.result()


def test_overlap_in_a_context(one: Checked) -> None:
    """Two calls never overlap in one context."""
    held_inside(
        one,
        lambda: one.assert_broken(
            "core", "BackendContext.memory", lambda: one.context.memory()
        ),
    )


def test_closed_in_use(one: Checked) -> None:
    """A context is not closed while a call is inside."""
    held_inside(
        one,
        lambda: one.assert_broken("core", "BackendContext.close", one.context.close),
    )


def test_contexts_are_apart(one: Checked) -> None:
    """Calls in two contexts may overlap if that is the declared scope."""
    other = one.model.create_context(ContextParams(context_size=64))
    held_inside(one, other.memory)

    assert one.engine.violations == []


@pytest.mark.parametrize("scope", ["model", "device", "process"])
def test_overlap_in_a_wider_scope(make: Make, scope: str) -> None:
    """Calls in two contexts never overlap where the declared scope is wider."""
    one = make(exclusion=scope)
    other = one.model.create_context(ContextParams(context_size=64))
    held_inside(
        one, lambda: one.assert_broken("core", "BackendContext.memory", other.memory)
    )


# -- what is asked -------------------------------------------------------------------


BATCHES = {
    "empty": Batch([], [], [], []),
    "too long": batch(*[(1, n, 0) for n in range(9)]),
    "columns differ": Batch([1, 2], [0], [0], [True]),
    "token too large": batch((10_000, 0, 0)),
    "token below zero": batch((-1, 0, 0)),
    "no such sequence": batch((1, 0, 2)),
    "starts late": batch((1, 1, 0)),
    "has a gap": batch((1, 0, 0), (1, 2, 0)),
    "repeats a position": batch((1, 0, 0), (1, 0, 0)),
}


@pytest.mark.parametrize("wrong", BATCHES.values(), ids=BATCHES.keys())
def test_batches(one: Checked, wrong: Batch) -> None:
    """A batch that is not as promised never reaches the engine."""
    one.context.bounds(0)

    one.assert_broken(
        "core", "BackendContext.decode", lambda: one.context.decode(wrong)
    )


def test_positions_follow_the_cache(one: Checked) -> None:
    """A batch begins right after what the cache holds."""
    one.feed(3)

    one.assert_broken(
        "core", "BackendContext.decode", lambda: one.context.decode(batch((1, 2, 0)))
    )


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bounds of no sequence": ("bounds", lambda c: c.bounds(2)),
    "data of one sequence": ("clear", lambda c: c.clear(0, data=True)),
    "logits of no output": ("logits", lambda c: c.logits(3)),
    "sampler of nobody": ("sample", lambda c: c.sample(2, object())),
    "remove before the start": ("remove", lambda c: c.remove(0, -1)),
    "remove nothing": ("remove", lambda c: c.remove(0, 2, 2)),
    "copy onto tokens": ("copy", lambda c: c.copy(1, 0)),
    "copy onto itself": ("copy", lambda c: c.copy(1, 1)),
    "shift below zero": ("shift", lambda c: c.shift(0, 1, 3, -2)),
    "embedding of a generator": ("embedding", lambda c: c.embedding(0)),
}


@pytest.mark.parametrize(("op", "work"), WRONG.values(), ids=WRONG.keys())
def test_arguments(one: Checked, op: str, work: Callable[[Any], Any]) -> None:
    """An argument that is not as promised never reaches the engine."""
    one.feed(3)

    one.assert_broken("core", f"BackendContext.{op}", lambda: work(one.context))


def test_closed_sampler(one: Checked) -> None:
    """A sampler is not used after it was closed."""
    one.feed()
    sampler = one.context.create_sampler(SamplingParams(temperature=0), 1)
    sampler.close()

    one.assert_broken(
        "core", "BackendContext.sample", lambda: one.context.sample(2, sampler)
    )


def test_accepted_tokens(one: Checked) -> None:
    """A sampler is told only tokens of the vocabulary."""
    sampler = one.context.create_sampler(SamplingParams(temperature=0), 1)

    one.assert_broken("core", "BackendSampler.accept", lambda: sampler.accept(-1))


def test_logits_go_with_the_next_call(one: Checked) -> None:
    """Logits that core reads after the next call are no numbers any more."""
    one.feed()
    logits = one.context.logits(2)
    one.context.bounds(0)

    assert not (logits == logits).any()


def test_failed_batches_have_no_outputs(one: Checked) -> None:
    """After an evaluation that failed no output is read."""
    one.feed()
    one.script.fail("decode")
    with pytest.raises(DecodeError):
        one.context.decode(batch((1, 3, 0)))

    one.assert_broken("core", "BackendContext.logits", lambda: one.context.logits(0))


@pytest.mark.parametrize("text", ["text", None])
def test_text(one: Checked, text: object) -> None:
    """Text is bytes."""
    one.assert_broken("core", "BackendModel.tokenize", lambda: one.model.tokenize(text))


@pytest.mark.parametrize("token", [-1, 10_000])
def test_pieces(one: Checked, token: int) -> None:
    """Only tokens of the vocabulary are asked for their text."""
    one.assert_broken("core", "BackendModel.piece", lambda: one.model.piece(token))


def test_size_is_a_number(one: Checked) -> None:
    """``"auto"`` is no size at the seam."""
    one.assert_broken(
        "core",
        "BackendModel.create_context",
        lambda: one.model.create_context(ContextParams()),
    )


def test_a_format_needs_a_file() -> None:
    """A backend that declares a format is not asked to load without a file."""
    info = BackendInfo(name="reader", factory="a:b", formats=("txt",))
    engine = checked(null_backend(NullScript()), info)
    with pytest.raises(ContractError):
        engine.load_model(None, ModelParams(), lambda share: True)

    assert [error.party for error in engine.violations] == ["core"]


# -- what was not declared -----------------------------------------------------------


UNDECLARED: dict[Capability, tuple[str, Callable[[Any], Any]]] = {
    Capability.LOGITS: ("logits", lambda c: c.logits(0)),
    Capability.NATIVE_SAMPLING: ("create_sampler", lambda c: c.create_sampler(0, 0)),
    Capability.PARTIAL_REMOVE: ("remove", lambda c: c.remove(0, 1)),
    Capability.COPY: ("copy", lambda c: c.copy(0, 1)),
    Capability.SHIFT: ("shift", lambda c: c.shift(0, 1, 2, -1)),
    Capability.STATE_IO: ("save_state", lambda c: c.save_state(0)),
    Capability.ABORT: ("abort", lambda c: c.abort(True)),
    Capability.EMBEDDING: ("embedding", lambda c: c.embedding(0)),
}


@pytest.mark.parametrize("capability", UNDECLARED, ids=str)
def test_undeclared(make: Make, capability: Capability) -> None:
    """What a model does not declare is never called."""
    one = make(capabilities=ALL - {capability, Capability.GPU})
    one.feed()
    op, work = UNDECLARED[capability]

    one.assert_broken("core", f"BackendContext.{op}", lambda: work(one.context))


@pytest.mark.parametrize("field", [{"sequences": 2}, {"embeddings": True}], ids=str)
def test_undeclared_context(make: Make, field: dict[str, Any]) -> None:
    """A context of an undeclared kind is never asked for."""
    one = make(capabilities=frozenset())
    params = ContextParams(context_size=64, **field)

    one.assert_broken(
        "core",
        "BackendModel.create_context",
        lambda: one.model.create_context(params),
    )
