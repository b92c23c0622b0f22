"""Unloads and crashes under a manager: the end of manager.md."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

import llmcore
from llmcore import Llama, Stream
from llmcore.errors import (
    BackendCrashedError,
    DisposedError,
    LlmcoreError,
    NotReadyError,
)
from llmcore.manager import loading
from llmcore_conformance import clause
from llmcore_conformance.checks import (
    assert_becomes,
    assert_waits,
    in_thread,
    outcome,
)
from llmcore_conformance.managed import House, MakeHouse

pytest_plugins = ["llmcore_conformance.managed"]


def unload(mine: House, **options: Any) -> Future[None]:
    """Unload the model ``"tale"``, in a thread of its own."""
    return in_thread(lambda: mine.manager.unload("tale", **options))


def assert_cut_off(stream: Stream) -> None:
    """Its reader gets one `DisposedError`, and then nothing more."""
    __tracebackhide__ = True
    with pytest.raises(DisposedError):
        list(stream)
    assert list(stream) == [], "it goes on after its error"


# -- unloading -------------------------------------------------------------------------


@clause("manager.drain")
def test_draining_waits_for_what_was_accepted(
    house: MakeHouse, patience: float
) -> None:
    """A stream that runs is read to its end meanwhile, and a new request is refused."""
    mine = house()
    mine.load("tale")
    stream = mine.stream("tale", 32)
    next(stream)
    ended = unload(mine)
    assert_becomes(lambda: mine.status("tale") != "ready", patience, "the unload")
    with pytest.raises(NotReadyError) as caught:
        mine.manager.generate("tale", "and I?", max_tokens=1)
    assert caught.value.status == "unloading"
    assert_waits(ended, "an unload that drains")
    try:
        tokens = stream.result.tokens
    except DisposedError as error:
        pytest.fail(f"an accepted request was cut off: {error}")
    assert tokens
    outcome(ended, patience, "the unload")


@clause("manager.drain-time")
def test_a_reader_that_sleeps_is_cut_off(house: MakeHouse, patience: float) -> None:
    """After the timeout the unload ends, and so does the stream that nobody read."""
    mine = house()
    mine.load("tale")
    stream = mine.stream("tale")
    outcome(unload(mine, timeout=0.01), patience, "an unload with 0.01 s")
    assert_cut_off(stream)


@clause("manager.cancel")
def test_cancelling_does_not_wait(house: MakeHouse, patience: float) -> None:
    """The stream ends with one error, however much time the unload has."""
    mine = house()
    mine.load("tale")
    stream = mine.stream("tale")
    ended = unload(mine, inflight="cancel", timeout=10 * patience)
    outcome(ended, patience, "an unload that cancels")
    assert_cut_off(stream)


@clause("manager.frees")
def test_an_unload_frees_all(house: MakeHouse) -> None:
    """When it returns, the engine is closed and the budget has nothing of it."""
    mine = house()
    mine.load("tale")
    assert mine.answers("tale")
    mine.manager.unload("tale")
    assert mine.ledgers["tale"].live == {}, "the engine was not closed"
    assert not mine.manager.budget.holders, "bytes are still reserved"
    assert mine.ids == []


# -- crashes ---------------------------------------------------------------------------


def crash(mine: House) -> None:
    """Have the engine of ``"tale"`` die in a request."""
    mine.ledgers["tale"].fail("decode", BackendCrashedError)
    with pytest.raises(LlmcoreError):
        mine.answers("tale")


@clause("manager.crash")
def test_a_crash_is_nobody_elses_affair(house: MakeHouse, patience: float) -> None:
    """A stream of another model goes on, and that answers further requests."""
    mine = house()
    mine.load("tale")
    mine.load("other")
    stream = mine.stream("other", 32)
    next(stream)
    crash(mine)
    assert_becomes(lambda: mine.status("tale") == "failed", patience, "the crash")
    try:
        assert stream.result.tokens
        assert mine.answers("other")
    except LlmcoreError as error:
        pytest.fail(f"the other model was affected: {error}")


@clause("manager.restart")
def test_a_crashed_model_comes_back(
    house: MakeHouse, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one restart it answers after the first crash; the second is its end."""
    mine = house()

    def get_llama(*, budget: Any, **options: Any) -> Llama:
        return llmcore.get_llama(mine.engine("tale"), budget=budget)

    monkeypatch.setattr(loading, "get_llama", get_llama)
    mine.load("tale", restarts=1, backend="a name that finds a new engine")
    model = mine.manager.fetch_model("tale")
    crash(mine)

    def is_back() -> bool:
        ready = mine.manager.loaded("tale")
        return ready and mine.manager.fetch_model("tale") is not model

    assert_becomes(is_back, patience, "a new engine after the crash")
    assert mine.answers("tale")
    crash(mine)
    assert_becomes(lambda: mine.status("tale") == "failed", patience, "the end of it")
    with pytest.raises(NotReadyError, match="crashed"):
        mine.answers("tale")
