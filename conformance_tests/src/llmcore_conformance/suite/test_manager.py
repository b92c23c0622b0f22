"""Many models under one budget: manager.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from llmcore.errors import (
    AlreadyLoadedError,
    CapabilityError,
    InsufficientMemoryError,
    ModelLoadError,
    NotLoadedError,
    NotReadyError,
    OperationTimeoutError,
    QueueFullError,
)
from llmcore.manager import DEFAULT
from llmcore.spi import Backend
from llmcore_conformance import clause
from llmcore_conformance.checks import (
    assert_becomes,
    assert_waits,
    in_thread,
    outcome,
)
from llmcore_conformance.managed import PROMPT, House, MakeHouse
from llmcore_conformance.plugin import current_run
from llmcore_conformance.target import Target

pytest_plugins = ["llmcore_conformance.managed"]


@pytest.fixture(scope="module")
def home(target: Target, shared_engine: Backend, patience: float) -> Iterator[House]:
    """One for tests that leave it as it was: the model ``"tale"``, to generate."""
    home = House(target, shared_engine, patience)
    home.load("tale", capabilities=["generate"], max_queue=1, default=True)
    yield home
    with suppress(Exception):
        home.manager.dispose(timeout=patience)


# -- loading ---------------------------------------------------------------------------


@clause("manager.ready")
def test_a_loaded_model_answers(house: MakeHouse) -> None:
    """It is listed as ready, and a request under its id gets an answer."""
    mine = house()
    mine.load("tale")
    assert mine.manager.loaded("tale")
    assert [(info["id"], info["status"]) for info in mine.manager.list()] == [
        ("tale", "ready")
    ]
    assert mine.answers("tale")


@clause("manager.same-id")
def test_an_id_is_taken_once(house: MakeHouse) -> None:
    """A second load is refused, its engine is not used, and the first model stays."""
    mine = house()
    mine.load("tale")
    model = mine.manager.fetch_model("tale")
    with pytest.raises(AlreadyLoadedError, match="tale"):
        mine.load("tale")
    assert mine.ledgers["tale"].order("load") == []
    assert mine.manager.fetch_model("tale") is model


@clause("manager.failed-load")
def test_a_failed_load_leaves_the_others(house: MakeHouse) -> None:
    """Its error comes out; ids and bytes are as before, and the other one answers."""
    mine = house()
    mine.load("tale")
    before = dict(mine.manager.budget.holders)
    bad = mine.engine("bad")
    mine.ledgers["bad"].fail("load")
    with pytest.raises(ModelLoadError):
        mine.load("bad", backend=bad)
    assert mine.ids == ["tale"], "the model that failed is listed"
    left = mine.manager.budget.holders.keys() - before.keys()
    assert mine.manager.budget.holders == before, f"still reserved: {left}"
    assert mine.ledgers["bad"].live == {}, "its engine was not closed"
    assert mine.answers("tale")


@clause("manager.look-ups")
def test_nobody_waits_for_a_load(home: House, patience: float) -> None:
    """With a load inside the engine, look-ups and a request return all the same."""
    manager = home.manager

    def use() -> None:
        assert manager.loaded("tale")
        assert manager.info("slow")["status"] == "loading"
        assert len(manager.list()) >= 2
        assert manager.route("tale").mode == "server"
        assert home.answers("tale")

    with home.load_slowly("slow") as gate:
        outcome(in_thread(use), patience, "a look-up or a request")
        assert gate.waiting == 1, "the load did not last as long as that"
    assert_becomes(lambda: home.status("slow") == "ready", patience, "the load")
    manager.unload("slow")


@clause("manager.loading")
def test_a_loading_model_says_so(home: House, patience: float) -> None:
    """A request during the load raises and has the status; after it, it is answered."""

    def ask() -> str:
        return home.manager.generate("late", PROMPT, max_tokens=1)

    with home.load_slowly("late"):
        with pytest.raises(NotReadyError) as caught:
            outcome(in_thread(ask), patience, "a request for a loading model")
        assert caught.value.status == "loading"
    assert_becomes(lambda: home.status("late") == "ready", patience, "the load")
    ask()
    home.manager.unload("late")


@clause("manager.cancel-load")
def test_a_load_can_be_given_up(home: House, patience: float) -> None:
    """Unloading ends the load; no id, no byte and no engine is left of it."""
    with home.load_slowly("wrong") as gate:
        unload = in_thread(lambda: home.manager.unload("wrong"))
        assert_waits(unload, "the unload of a model inside its engine")
        gate.open()
        outcome(unload, patience, "the unload")
    assert "wrong" not in home.ids, "the model is there all the same"
    ledger = home.ledgers["wrong"]
    assert_becomes(lambda: not ledger.live, patience, "the end of its engine")
    left = [name for name in home.manager.budget.holders if "wrong" in name]
    assert not left, f"still reserved: {left}"


@clause("manager.server-embeds")
def test_a_server_for_embeddings_is_refused(home: House) -> None:
    """The load raises a ValueError, and the engine is not even asked."""
    engine = home.engine("both")
    with pytest.raises(ValueError, match="embed"):
        home.load("both", backend=engine, mode="server", capabilities=["embed"])
    assert home.ledgers["both"].order("load") == []
    assert "both" not in home.ids


# -- requests --------------------------------------------------------------------------


@clause("manager.unknown-id")
def test_an_unknown_id_is_an_error(house: MakeHouse) -> None:
    """It names the id that was meant; the model that has that one is not asked."""
    mine = house()
    mine.load("tale")
    manager = mine.manager
    uses: list[Callable[[str], object]] = [
        lambda id: manager.generate(id, PROMPT, max_tokens=1),
        lambda id: manager.chat(id, [("user", PROMPT)], max_tokens=1),
        lambda id: manager.embed(id, PROMPT),
        *(manager.info, manager.route, manager.fetch_model, manager.unload),
    ]
    for use in uses:
        with pytest.raises(NotLoadedError, match="'tale'"):
            use("tail")
    assert mine.ledgers["tale"].order("decode") == [], "another model was asked"
    assert mine.ids == ["tale"]


@clause("manager.default")
def test_the_default_goes_with_its_model(house: MakeHouse) -> None:
    """It answers for its model; without that there is none, though another is there."""
    mine = house()
    mine.load("tale", default=True)
    mine.load("other")
    assert mine.manager.default() == "tale"
    mine.manager.generate(DEFAULT, PROMPT, max_tokens=1)
    assert mine.ledgers["tale"].order("decode")
    assert not mine.ledgers["other"].order("decode"), "another model has answered"
    mine.manager.unload("tale")
    assert mine.manager.default() is None, "another model is the default now"
    with pytest.raises(NotLoadedError):
        mine.manager.generate(DEFAULT, PROMPT, max_tokens=1)


@clause("manager.capability")
def test_what_a_model_is_not_for_is_refused(home: House) -> None:
    """A chat and an embedding are refused by name; the engine is not asked."""
    before = home.ledgers["tale"].order("decode")
    with pytest.raises(CapabilityError, match="chat"):
        home.manager.chat("tale", [("user", PROMPT)], max_tokens=1)
    with pytest.raises(CapabilityError, match="embed"):
        home.manager.embed("tale", PROMPT)
    assert home.ledgers["tale"].order("decode") == before, "the engine was asked"


@clause("manager.embed")
def test_a_vector_is_that_of_a_context(
    pytestconfig: pytest.Config, target: Target, shared_engine: Backend, patience: float
) -> None:
    """`embed` gives the numbers that a context of the program's own gives."""
    embedder = current_run(pytestconfig).subject.embedder
    mine = House(embedder, shared_engine, patience)
    with mine.manager as manager:
        mine.load("vectors", capabilities=["embed"])
        model = manager.fetch_model("vectors")
        with model.create_context(
            context_size=128, threads=1, embeddings=True
        ) as context:
            expected = context.embed(PROMPT).tolist()
        assert manager.embed("vectors", PROMPT) == pytest.approx(expected, rel=1e-3)


@clause("manager.queue-length")
def test_a_full_queue_refuses(home: House, patience: float) -> None:
    """With one who waits where one may, the next is refused and does not wait."""
    with home.stream("tale"):
        waiting = in_thread(lambda: home.answers("tale"))
        depth = "queue_depth"
        assert_becomes(
            lambda: home.manager.info("tale")[depth] == 1, patience, "a request waits"
        )
        with pytest.raises(QueueFullError):
            outcome(in_thread(lambda: home.answers("tale")), patience, "a request")
    assert outcome(waiting, patience, "the request that waited")


@clause("manager.queue-time")
def test_waiting_in_the_queue_ends(home: House, patience: float) -> None:
    """A request whose time is over raises, and counts as a request no more."""

    def ask() -> None:
        home.stream("tale", queue=0.01).close()

    with home.stream("tale"):
        with pytest.raises(OperationTimeoutError):
            outcome(in_thread(ask), patience, "a request with 0.01 s")
        assert home.manager.info("tale")["active_requests"] == 1
    assert home.answers("tale")


# -- room ------------------------------------------------------------------------------


def load_in_thread(mine: House, id: str, **options: Any) -> Any:
    """A load that may have to wait."""
    return in_thread(lambda: mine.load(id, **options))


@clause("manager.parallel")
def test_a_load_that_runs_counts(house: MakeHouse, patience: float) -> None:
    """With room for one, a second waits while the first is in its engine."""
    mine = house(1)
    with mine.load_slowly("tale"):
        load = load_in_thread(mine, "other")
        assert_waits(load, "a load without room")
        assert not mine.ledgers["other"].order("load"), "its engine was asked"
    outcome(load, patience, "the load")
    assert mine.ids == ["other"]


@clause("manager.refuse")
def test_with_refuse_nobody_goes(house: MakeHouse) -> None:
    """A second model is refused where one has room, and the first stays."""
    mine = house(1, policy="refuse")
    mine.load("tale")
    with suppress(InsufficientMemoryError):
        mine.load("other")
    assert mine.ids == ["tale"], "a model was evicted"


@clause("manager.in-use")
@pytest.mark.parametrize("use", ["request", "lease"])
def test_a_model_in_use_stays(house: MakeHouse, patience: float, use: str) -> None:
    """A load waits for the end of the request or lease that holds the only place."""
    mine = house(1)
    mine.load("tale")
    held: Any = (
        mine.stream("tale")
        if use == "request"
        else mine.manager.fetch_model("tale").lease()
    )
    with held:
        load = load_in_thread(mine, "other")
        assert_waits(load, "a load without room")
        assert mine.manager.loaded("tale"), "it was evicted under its user"
    outcome(load, patience, "the load")
    assert mine.ids == ["other"]


@clause("manager.pinned")
def test_a_pinned_model_stays(house: MakeHouse) -> None:
    """Though it was not used for longer, the other one goes."""
    mine = house(2)
    mine.load("tale", pin=True)
    mine.load("second")
    mine.load("third")
    assert mine.ids == ["tale", "third"]


@clause("manager.longest-unused")
def test_the_longest_unused_goes(house: MakeHouse) -> None:
    """Of two models the one goes that was not asked since, though it is the newer."""
    mine = house(2)
    mine.load("tale")
    mine.load("second")
    lease = mine.manager.fetch_model("tale").lease()
    assert mine.answers("second")
    lease.release()
    mine.load("third")
    assert mine.ids == ["tale", "third"]


@clause("manager.fewest")
def test_no_more_go_than_must(house: MakeHouse) -> None:
    """A small model stays if a large one that was used later is enough."""
    mine = house(4)
    mine.load("small")
    mine.load("large", 3)
    mine.load("new", 3)
    assert mine.ids == ["small", "new"]


@clause("manager.too-large")
def test_what_is_too_large_fails_at_once(house: MakeHouse, patience: float) -> None:
    """It does not wait for those in use, and evicts none of the idle ones."""
    mine = house(2)
    mine.load("tale")
    mine.load("second")
    with mine.manager.fetch_model("second").lease():
        load = load_in_thread(mine, "huge", size=3)
        with pytest.raises(InsufficientMemoryError):
            outcome(load, patience, "a load of what is too large")
    assert mine.ids == ["tale", "second"]


@clause("manager.room-time")
def test_waiting_for_room_ends(house: MakeHouse, patience: float) -> None:
    """A load whose time is over raises, and the model in use is there."""
    mine = house(1)
    mine.load("tale")
    with mine.manager.fetch_model("tale").lease():
        load = load_in_thread(mine, "other", timeout=0.01)
        with pytest.raises(InsufficientMemoryError):
            outcome(load, patience, "a load with 0.01 s")
    assert mine.ids == ["tale"]
