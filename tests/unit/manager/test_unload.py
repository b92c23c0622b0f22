"""Unloading: drained, cancelled, timed, and by itself."""

from __future__ import annotations

import pytest

from llmcore.errors import DisposedError, NotLoadedError, NotReadyError

from .conftest import MB

LONG = {"answer": "an answer that takes a while to be read to its end"}


class TestUnload:
    def test_memory_is_free_when_it_returns(self, house):
        """After `unload` the engine holds nothing, and the budget neither."""
        house = house()
        house.load("m")
        house.manager.generate("m", "hi", max_tokens=1)
        house.manager.unload("m")
        assert house.backends[0].ledger.live == {}
        assert house.manager.budget.holders == {}
        with pytest.raises(NotLoadedError):
            house.manager.unload("m")

    def test_draining_lets_requests_end(self, house):
        """An accepted request is answered whole, while new ones are refused."""
        house = house()
        house.load("m", script=LONG)
        stream = house.manager.stream("m", "well?")
        unload = house.thread(lambda: house.manager.unload("m"))
        while house.manager.info("m")["status"] == "ready":
            pass
        with pytest.raises(NotReadyError, match="unloading") as caught:
            house.manager.generate("m", "me too")
        assert caught.value.status == "unloading"
        assert stream.result.text == LONG["answer"]
        unload.join()
        assert house.ids == []

    def test_draining_lets_queued_requests_end(self, house):
        """A request that waits for a sequence was accepted, and is answered."""
        house = house()
        house.load("m", script=LONG, sequences=1)
        stream = house.manager.stream("m", "well?")
        queued = house.thread(lambda: house.manager.generate("m", "and?"))
        while house.manager.info("m")["queue_depth"] == 0:
            pass
        unload = house.thread(lambda: house.manager.unload("m"))
        assert stream.result.text == queued.join() == LONG["answer"]
        unload.join()

    def test_draining_waits_for_leases(self, house):
        """A lease that a caller holds on the model is waited for, too."""
        house = house()
        house.load("m")
        lease = house.manager.fetch_model("m").lease()
        unload = house.thread(lambda: house.manager.unload("m"))
        while house.manager.info("m")["status"] == "ready":
            pass
        assert unload.running
        lease.release()
        unload.join()

    def test_what_takes_too_long_is_cancelled(self, house):
        """After the timeout a request that still runs gets one `DisposedError`."""
        house = house()
        house.load("m", script=LONG)
        stream = house.manager.stream("m", "well?")
        house.manager.unload("m", timeout=0.01)
        with pytest.raises(DisposedError):
            stream.result  # noqa: B018
        assert house.backends[0].ledger.live == {}

    def test_cancelling_does_not_wait(self, house):
        """With ``cancel`` requests that run get one `DisposedError` at once."""
        house = house()
        house.load("m", script=LONG)
        stream = house.manager.stream("m", "well?")
        house.manager.unload("m", inflight="cancel")
        with pytest.raises(DisposedError):
            stream.result  # noqa: B018

    def test_an_unknown_way_is_an_error(self, house):
        """``inflight`` is ``drain`` or ``cancel``; anything else changes nothing."""
        house = house()
        house.load("m")
        with pytest.raises(ValueError, match="inflight"):
            house.manager.unload("m", inflight="kill")
        assert house.manager.loaded("m")

    def test_unloading_twice_at_once(self, house):
        """A second `unload` of a model that drains waits for the first."""
        house = house()
        house.load("m")
        lease = house.manager.fetch_model("m").lease()
        first = house.thread(lambda: house.manager.unload("m"))
        while house.manager.info("m")["status"] == "ready":
            pass
        second = house.thread(lambda: house.manager.unload("m"))
        lease.release()
        first.join()
        second.join()
        assert house.ids == []


class TestKeepAlive:
    def test_an_idle_model_goes(self, house):
        """A model with ``keep_alive`` is unloaded when it was idle for so long."""
        house = house()
        house.load("m", keep_alive=0.0)
        while house.ids:
            pass
        assert house.backends[0].ledger.live == {}

    def test_a_model_in_use_stays(self, house):
        """However long a request lasts, the model stays; idle time begins after it."""
        house = house()
        house.load("busy", keep_alive=None)
        lease = house.manager.fetch_model("busy").lease()
        entry = house.manager._table.get("busy")
        assert not house.manager._keeper.evict(entry, idle=0.0)
        lease.release()
        assert not house.manager._keeper.evict(entry, idle=3600.0)
        assert house.manager._keeper.evict(entry, idle=0.0)

    def test_other_models_stay(self, house):
        """Models without ``keep_alive`` are not touched by the timer."""
        house = house()
        house.load("m", keep_alive=0.0, size=MB)
        house.load("stays")
        while house.ids != ["stays"]:
            pass
        assert house.manager.loaded("stays")
