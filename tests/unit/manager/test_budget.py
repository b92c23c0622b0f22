"""The budget: who is evicted, who is not, and who has to wait."""

from __future__ import annotations

import pytest

from llmcore import telemetry
from llmcore.errors import InsufficientMemoryError, NotLoadedError
from llmcore.memory import Budget

from .conftest import MB


class TestRefuse:
    def test_what_does_not_fit_is_refused(self, house):
        """With ``refuse`` a full budget is an error that carries the whole account."""
        house = house(budget=2 * MB, policy="refuse")
        house.load("one")
        house.load("two")
        with pytest.raises(InsufficientMemoryError, match="unload something") as caught:
            house.load("three")
        account = caught.value.account
        assert account.holders == {"model 'one'": MB, "model 'two'": MB}
        assert account.footprint.total == MB
        assert "model 'one'" in account.explain()
        assert house.ids == ["one", "two"]

    def test_an_unknown_policy_is_an_error(self, house):
        """A policy that there is not is refused at once."""
        with pytest.raises(ValueError, match="policy"):
            house(policy="hope")

    def test_headroom_is_reserved_too(self, house):
        """With 20 % headroom two models of 1 MB do not fit into 2 MB."""
        house = house(budget=2 * MB, headroom=0.2, policy="refuse")
        house.load("one")
        assert house.manager.budget.holders == {"model 'one'": 1_200_000}
        with pytest.raises(InsufficientMemoryError):
            house.load("two")

    def test_no_limit(self, house):
        """A budget of None refuses nothing."""
        house = house(budget=None)
        house.load("one", size=1 << 50)


class TestWhatIsReallyUsed:
    def test_an_estimate_is_settled_by_the_engine(self, house):
        """After the load the ledger holds what the engine says, not the guess."""
        house = house(budget=10 * MB)
        house.load("m", size=3 * MB, reserve=5 * MB)
        assert house.manager.budget.holders == {"model 'm'": 3 * MB}

    def test_a_model_that_is_larger_than_it_said_is_not_kept(self, house):
        """If it uses more than was reserved and than is free, it is disposed."""
        house = house(budget=2 * MB, policy="refuse")
        with pytest.raises(InsufficientMemoryError):
            house.load("m", size=3 * MB, reserve=1 * MB)
        assert house.ids == []
        assert house.backends[0].ledger.live == {}

    def test_contexts_of_callers_count(self, house):
        """A context that a caller makes on a model counts for the model, and frees."""
        house = house(budget=10 * MB)
        house.load("m", script={"kv_bytes_per_token": 1000})
        before = house.manager.budget.holders["model 'm'"]
        with house.manager.fetch_model("m").create_context(context_size=100):
            assert house.manager.budget.holders["model 'm'"] == before + 100_000
        assert house.manager.budget.holders["model 'm'"] == before

    def test_a_context_that_does_not_fit_is_refused(self, house):
        """A context beyond the budget raises, and the model is as usable as before."""
        house = house(budget=2 * MB)
        house.load("m", script={"kv_bytes_per_token": 1000})
        with pytest.raises(InsufficientMemoryError):
            house.manager.fetch_model("m").create_context(context_size=1000)
        assert house.manager.generate("m", "hi", max_tokens=1)


class TestEvict:
    def test_the_longest_unused_goes(self, house):
        """The model whose last lease ended first is evicted, not the oldest one."""
        house = house(budget=2 * MB)
        house.load("one")
        house.load("two")
        house.manager.generate("one", "hi", max_tokens=1)
        house.load("three")
        assert house.ids == ["one", "three"]
        assert house.backends[1].ledger.live == {}
        with pytest.raises(NotLoadedError):
            house.manager.generate("two", "hi")

    def test_the_end_of_a_lease_counts(self, house):
        """Of two models the one that was held until later stays."""
        house = house(budget=2 * MB)
        house.load("one")
        house.load("two")
        lease = house.manager.fetch_model("one").lease()
        house.manager.generate("two", "hi", max_tokens=1)
        lease.release()
        house.load("three")
        assert house.ids == ["one", "three"]

    def test_pinned_models_stay(self, house):
        """A pinned model is never evicted, however long it was not used."""
        house = house(budget=2 * MB)
        house.load("one", pin=True)
        house.load("two")
        house.load("three")
        assert house.ids == ["one", "three"]

    def test_no_more_than_needed_goes(self, house):
        """Small models that were used lately are spared if a large one is enough."""
        house = house(budget=4 * MB)
        house.load("small")
        house.load("large", size=3 * MB)
        house.load("new", size=3 * MB)
        assert house.ids == ["small", "new"]

    def test_too_large_evicts_nothing(self, house):
        """A model that could never fit fails at once, and the others stay."""
        house = house(budget=3 * MB)
        house.load("one")
        house.load("two")
        with pytest.raises(InsufficientMemoryError):
            house.load("huge", size=4 * MB)
        assert house.ids == ["one", "two"]

    def test_pinned_models_count_as_too_large(self, house):
        """If only pinned models would have to go, nothing is evicted either."""
        house = house(budget=3 * MB)
        house.load("one", pin=True)
        house.load("two")
        with pytest.raises(InsufficientMemoryError):
            house.load("large", size=3 * MB)
        assert house.ids == ["one", "two"]


class TestInUse:
    def test_a_request_is_never_evicted(self, house):
        """A load waits for the request that holds the place, and then gets it."""
        house = house(budget=MB)
        house.load("one", script={"answer": "a whole answer"})
        stream = house.manager.stream("one", "well?")
        waiting = house.thread(lambda: house.load("two"))
        assert stream.result.text == "a whole answer"
        waiting.join()
        assert house.ids == ["two"]

    def test_waiting_for_room_ends(self, house):
        """A load that gets no room in its time raises with the account; nobody went."""
        house = house(budget=MB)
        house.load("one")
        with (
            house.manager.fetch_model("one").lease(),
            pytest.raises(InsufficientMemoryError) as caught,
        ):
            house.load("two", timeout=0.05)
        assert caught.value.account.holders == {"model 'one'": MB}
        assert house.ids == ["one"]

    def test_a_load_that_waits_can_be_cancelled(self, house):
        """Unloading a model that waits for room ends its wait."""
        house = house(budget=MB)
        house.load("one")
        with house.manager.fetch_model("one").lease():
            backend = house.engine("two")
            house.manager.load("two", backend=backend, reserve=MB, wait=False)
            house.manager.unload("two")
        assert house.ids == ["one"]

    def test_parallel_loads_cannot_both_count_on_the_same_bytes(self, house):
        """What a load will need is reserved before it begins: the second sees it."""
        house = house(budget=MB, policy="refuse")
        gate = house.gated("one", "load")
        gate.wait_entered()
        with pytest.raises(InsufficientMemoryError):
            house.load("two")
        gate.open()
        house.settle("one")
        assert house.ids == ["one"]

    def test_a_model_that_loads_can_be_waited_for(self, house):
        """A load that needs the place of one which still loads gets it afterwards."""
        house = house(budget=MB)
        gate = house.gated("one", "load")
        gate.wait_entered()
        waiting = house.thread(lambda: house.load("two"))
        gate.open()
        waiting.join()
        assert house.ids == ["two"]


class TestSharedBudget:
    def test_two_managers_can_share_one(self, house):
        """Managers over the same `Budget` see what the other one has reserved."""
        budget = Budget(MB, headroom=0)
        one = house(budget=budget, policy="refuse")
        two = house(budget=budget, policy="refuse")
        one.load("m")
        with pytest.raises(InsufficientMemoryError):
            two.load("m")
        one.manager.unload("m")
        two.load("m")


class TestTelemetry:
    def test_an_eviction_is_told(self, house):
        """Who listens hears of an eviction: which model, how many bytes, how long."""
        house = house(budget=MB)
        house.load("one")
        events: list[telemetry.TelemetryEvent] = []
        with telemetry.listen(events.append, names="evict"):
            house.load("two")
        start, end = events
        assert (start.phase, end.phase) == ("start", "complete")
        assert (end.attributes["model"], end.attributes["bytes"]) == ("one", MB)
        assert end.duration is not None
