"""A checked backend catches an engine that does not do what it owes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from llmcore.backends.null.backend import NullBackend
from llmcore.backends.null.context import NullContext
from llmcore.backends.null.model import NullModel
from llmcore.backends.null.sampler import NullSampler
from llmcore.errors import DecodeAbortedError, ModelLoadError, StateError
from llmcore.testing import ContractError
from llmcore.values import CacheKind, Capability, SamplingParams

from .conftest import PARAMS, Checked, Make, batch

Lie = Callable[..., Any]


def says(value: Any) -> Lie:
    """An answer that is always the same."""
    return lambda *args, **keywords: value


def ignores(*args: Any, **keywords: Any) -> None:
    """Does nothing and says nothing."""


def raises(*args: Any, **keywords: Any) -> Any:
    """Raises an error of its own."""
    raise ZeroDivisionError("in the engine")


def logits(*values: float, size: int = 268, dtype: type = np.float32) -> Lie:
    """An array of zeros that begins with some values."""
    array = np.zeros(size, dtype)
    array[: len(values)] = values
    return says(array)


# -- one lie each --------------------------------------------------------------------


CONTEXT: dict[str, tuple[str, Lie, Callable[[Any], Any]]] = {
    "decode that does nothing": (
        "decode",
        ignores,
        lambda c: c.decode(batch((1, 3, 0))),
    ),
    "decode with its own error": (
        "decode",
        raises,
        lambda c: c.decode(batch((1, 3, 0))),
    ),
    "clear that keeps": ("clear", ignores, lambda c: c.clear(0)),
    "clear that keeps all": ("clear", ignores, lambda c: c.clear()),
    "bounds that are a list": ("bounds", says([0, 2]), lambda c: c.bounds(0)),
    "bounds in reverse": ("bounds", says((2, 0)), lambda c: c.bounds(0)),
    "bounds that are None": ("bounds", says(None), lambda c: c.bounds(0)),
    "memory below zero": ("memory", says(-1), lambda c: c.memory()),
    "logits of another shape": ("logits", logits(size=7), lambda c: c.logits(2)),
    "logits that are a list": ("logits", says([0.0] * 268), lambda c: c.logits(2)),
    "logits in float64": ("logits", logits(dtype=float), lambda c: c.logits(2)),
    "logits with NaN": ("logits", logits(np.nan), lambda c: c.logits(2)),
    "logits with infinity": ("logits", logits(np.inf), lambda c: c.logits(2)),
    "no logit is finite": ("logits", logits(*[-np.inf] * 268), lambda c: c.logits(2)),
    "remove that keeps": ("remove", says(True), lambda c: c.remove(0, 1)),
    "remove that says nothing": ("remove", ignores, lambda c: c.remove(0, 1)),
    "copy that copies nothing": ("copy", ignores, lambda c: c.copy(0, 1)),
    "shift that moves nothing": ("shift", ignores, lambda c: c.shift(0, 2, 3, 5)),
    "state that is a view": (
        "save_state",
        says(memoryview(b"")),
        lambda c: c.save_state(0),
    ),
    "sampler that is none": (
        "create_sampler",
        says(7),
        lambda c: c.create_sampler(SamplingParams(), 1),
    ),
    "close with its own error": ("close", raises, lambda c: c.close()),
}


@pytest.mark.parametrize(("op", "lie", "work"), CONTEXT.values(), ids=CONTEXT.keys())
def test_context(
    one: Checked,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    lie: Lie,
    work: Callable[[Any], Any],
) -> None:
    """A context that does not do what it says breaks the contract."""
    one.feed(3)
    monkeypatch.setattr(NullContext, op, lie)

    one.assert_broken("backend", f"BackendContext.{op}", lambda: work(one.context))


MODEL: dict[str, tuple[str, Lie, Callable[[Any], Any]]] = {
    "tokens that are a tuple": ("tokenize", says((1,)), lambda m: m.tokenize(b"a")),
    "tokens out of range": ("tokenize", says([268]), lambda m: m.tokenize(b"a")),
    "a control token": ("tokenize", says([264]), lambda m: m.tokenize(b"<s>")),
    "a piece that is text": ("piece", says("a"), lambda m: m.piece(97)),
    "a piece of control": ("piece", says(b"<s>"), lambda m: m.piece(264)),
    "no context": ("create_context", ignores, lambda m: m.create_context(PARAMS)),
}


@pytest.mark.parametrize(("op", "lie", "work"), MODEL.values(), ids=MODEL.keys())
def test_model(
    one: Checked,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    lie: Lie,
    work: Callable[[Any], Any],
) -> None:
    """A model that does not answer as it should breaks the contract."""
    assert one.model
    monkeypatch.setattr(NullModel, op, lie)

    one.assert_broken("backend", f"BackendModel.{op}", lambda: work(one.model))


BACKEND: dict[str, tuple[str, Lie, Callable[[Checked], Any]]] = {
    "devices of its own": ("devices", says(["cpu"]), lambda one: one.engine.devices()),
    "no model": ("load_model", ignores, lambda one: one.load()),
    "its own error": ("load_model", raises, lambda one: one.load()),
}


@pytest.mark.parametrize(("op", "lie", "work"), BACKEND.values(), ids=BACKEND.keys())
def test_backend(
    one: Checked,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    lie: Lie,
    work: Callable[[Checked], Any],
) -> None:
    """A backend that does not answer as it should breaks the contract."""
    monkeypatch.setattr(NullBackend, op, lie)

    one.assert_broken("backend", f"Backend.{op}", lambda: work(one))


# -- facts and parameters ------------------------------------------------------------


FACTS: dict[str, dict[str, Any]] = {
    "more capabilities": {"capabilities": frozenset({Capability.GPU})},
    "no vocabulary": {"vocab_size": 0},
    "an end out of range": {"end_tokens": frozenset({268})},
    "a begin out of range": {"bos_token": -1},
    "vectors without size": {"embedding_size": 0},
}


@pytest.mark.parametrize("change", FACTS.values(), ids=FACTS.keys())
def test_facts(
    one: Checked, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """The facts about a model agree with each other, and it is closed if not."""
    info = evolve(one.model.info, **change)
    monkeypatch.setattr(NullModel, "info", info)

    one.assert_broken("backend", "BackendModel.info", one.load)
    assert one.engine.live == {"backend": 1, "model": 1}


def test_facts_that_change(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts about a model are the same object every time."""
    other = evolve(one.model.info)
    monkeypatch.setattr(NullModel, "info", other)

    one.assert_broken("backend", "BackendModel.info", lambda: one.model.info)


GIVEN: dict[str, dict[str, Any]] = {
    "too small": {"context_size": 32},
    "a word": {"context_size": "auto"},
    "fewer sequences": {"sequences": 1},
    "threads unknown": {"threads": None},
}


@pytest.mark.parametrize("change", GIVEN.values(), ids=GIVEN.keys())
def test_given_params(
    one: Checked, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """A context says what was really given, and that is enough."""
    given = evolve(PARAMS, **({"threads": 1, "threads_batch": 1} | change))
    monkeypatch.setattr(NullContext, "params", given)

    one.assert_broken(
        "backend",
        "BackendContext.params",
        lambda: one.model.create_context(PARAMS),
    )
    assert "context" not in one.engine.live


def test_params_that_change(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given does not change."""
    other = evolve(one.context.params, threads=7)
    monkeypatch.setattr(NullContext, "params", other)

    one.assert_broken("backend", "BackendContext.params", lambda: one.context.params)


# -- loading -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares", [[], [1.0], [0.0], [0.0, 0.9, 0.2, 1.0], [0.0, 2.0, 1.0]], ids=str
)
def test_progress(
    one: Checked, monkeypatch: pytest.MonkeyPatch, shares: list[float]
) -> None:
    """Progress rises from 0 to 1."""
    real = NullBackend.load_model

    def load(self: NullBackend, path: Any, params: Any, progress: Any) -> Any:
        for share in shares:
            progress(share)
        return real(self, path, params, says(True))

    monkeypatch.setattr(NullBackend, "load_model", load)

    one.assert_broken("backend", "Backend.load_model", one.load)


def test_cancel_that_is_ignored(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that was cancelled does not give a model."""
    real = NullBackend.load_model

    def load(self: NullBackend, path: Any, params: Any, progress: Any) -> Any:
        return real(self, path, params, lambda share: progress(share) or True)

    monkeypatch.setattr(NullBackend, "load_model", load)

    one.assert_broken("backend", "Backend.load_model", lambda: one.load(says(False)))


# -- the cache -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", CacheKind, ids=str)
def test_honest_caches(make: Make, kind: CacheKind) -> None:
    """A cache of any kind that does as it says, or says that it cannot, is fine."""
    one = make(cache_kind=kind, window=4)
    one.feed(8)
    if Capability.PARTIAL_REMOVE in one.model.info.capabilities:
        one.context.remove(0, 6)
        one.context.remove(0, 1, 3)
        one.context.remove(0, 0)
    one.context.clear()

    assert one.engine.violations == []


@pytest.mark.parametrize("lie", [True, "stay"])
def test_lies_about_removal(make: Make, lie: Any) -> None:
    """A removal that is not what was said breaks the contract."""
    one = make(lie=lie)
    one.feed(3)

    one.assert_broken(
        "backend", "BackendContext.remove", lambda: one.context.remove(0, 1)
    )


def test_refusal_that_removes(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is refused changes nothing."""
    one.feed(3)
    real = NullContext.remove
    lie = lambda self, *where: not real(self, *where)  # noqa: E731
    monkeypatch.setattr(NullContext, "remove", lie)

    one.assert_broken(
        "backend", "BackendContext.remove", lambda: one.context.remove(0, 1)
    )


def test_removal_in_the_middle(one: Checked) -> None:
    """A hole and its closing are followed."""
    one.feed(8)
    assert one.context.remove(0, 2, 4)
    one.context.shift(0, 4, 8, -2)
    assert one.context.remove(0, 0, 2)

    assert (one.context.bounds(0), one.engine.violations) == ((2, 5), [])


def test_damage_by_a_bad_state(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that does not fit leaves the sequence empty or unchanged."""
    one.feed(3)

    def load(self: NullContext, sequence: int, data: bytes) -> None:
        self.remove(sequence, 1)
        raise StateError("it does not fit")

    monkeypatch.setattr(NullContext, "load_state", load)

    one.assert_broken(
        "backend", "BackendContext.load_state", lambda: one.context.load_state(0, b"")
    )


# -- the rest ------------------------------------------------------------------------


def test_deaf_decode(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was told to stop does not evaluate."""
    one.context.bounds(0)
    monkeypatch.setattr(NullContext, "abort", ignores)
    one.context.abort(True)

    one.assert_broken("backend", "BackendContext.decode", one.feed)


def test_abort(one: Checked) -> None:
    """An engine that stops when told, and goes on when told, is fine."""
    one.context.abort(True)
    with pytest.raises(DecodeAbortedError):
        one.feed()
    one.context.abort(False)
    one.feed()

    assert one.engine.violations == []


@pytest.mark.parametrize(
    "vector",
    [np.zeros(3, np.float32), np.zeros(16), np.full(16, np.nan, np.float32)],
    ids=["shape", "dtype", "NaN"],
)
def test_embedding(one: Checked, monkeypatch: pytest.MonkeyPatch, vector: Any) -> None:
    """A vector is finite numbers of float32, as many as the model says."""
    context = one.model.create_context(evolve(PARAMS, embeddings=True))
    monkeypatch.setattr(NullContext, "embedding", says(vector))

    one.assert_broken(
        "backend", "BackendContext.embedding", lambda: context.embedding(0)
    )


def test_sampled_token(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was drawn is one of the vocabulary."""
    one.feed()
    sampler = one.context.create_sampler(SamplingParams(temperature=0), 1)
    monkeypatch.setattr(NullContext, "sample", says(268))

    one.assert_broken(
        "backend", "BackendContext.sample", lambda: one.context.sample(2, sampler)
    )


def test_cause(one: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine raised of its own is the cause."""
    sampler = one.context.create_sampler(SamplingParams(temperature=0), 1)
    monkeypatch.setattr(NullSampler, "accept", raises)
    with pytest.raises(ContractError, match="ZeroDivisionError") as caught:
        sampler.accept(1)

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_errors_of_the_contract(one: Checked) -> None:
    """Errors that the seam knows pass as they are."""
    one.script.fail("load")
    with pytest.raises(ModelLoadError):
        one.load()

    assert one.engine.violations == []
