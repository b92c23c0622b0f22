"""Loads: in the background or not, refused, failed, cancelled."""

from __future__ import annotations

import gc
import weakref

import anyio
import pytest

from llmcore.errors import (
    AlreadyLoadedError,
    AlreadyStartedError,
    DisposedError,
    ModelLoadError,
    NotLoadedError,
    NotReadyError,
    OperationCancelledError,
)
from llmcore.manager import DEFAULT, ModelManager
from llmcore.testing import null_backend


class TestOneLoad:
    def test_a_loaded_model_is_ready(self, house):
        """`load` returns the id, and the model is ready then."""
        house = house()
        assert house.load("chat") == "chat"
        assert house.manager.loaded("chat")
        assert house.manager.info("chat")["status"] == "ready"

    def test_ids_are_anything_hashable(self, house):
        """A number, a tuple and a text are ids, and are what comes back."""
        house = house()
        for id in (1, ("a", 2), "1"):
            house.load(id)
        assert house.ids == [1, ("a", 2), "1"]

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"sequence": 3}, TypeError, "there is no option 'sequence'"),
            ({"mode": "server", "capabilities": "embed"}, ValueError, "cannot embed"),
            ({"capabilities": ["paint"]}, ValueError, "paint"),
            ({"capabilities": []}, ValueError, "some of generate"),
            ({"mode": "both"}, ValueError, "'server', 'direct'"),
            ({"keep_alive": -1}, ValueError, "keep_alive"),
            ({"context_size": 1}, ValueError, "context_size"),
        ],
    )
    def test_bad_options_are_refused(self, house, options, error, words):
        """A bad option is an error that names it, and nothing is loaded."""
        house = house()
        with pytest.raises(error, match=words):
            house.manager.load("chat", backend=null_backend(), **options)
        assert house.ids == []

    def test_bad_ids_are_refused(self, house):
        """An id that cannot be hashed, `DEFAULT` and None are errors."""
        manager = house().manager
        with pytest.raises(TypeError, match="unhashable"):
            manager.load([], backend=null_backend())
        for id in (DEFAULT, None):
            with pytest.raises(ValueError, match="is no id"):
                manager.load(id, backend=null_backend())

    def test_the_same_id_twice_is_an_error(self, house):
        """A second load of an id is refused, and the first model goes on."""
        house = house()
        house.load("chat")
        with pytest.raises(AlreadyLoadedError, match="replace=True"):
            house.load("chat")
        assert house.manager.loaded("chat")

    def test_replace_unloads_first(self, house):
        """With ``replace`` the old model is freed before the new one is loaded."""
        house = house(budget=1_000_000)
        house.load("chat")
        house.load("chat", replace=True)
        assert house.ids == ["chat"]
        assert house.backends[0].ledger.live == {}


class TestFailures:
    def test_a_failed_load_leaves_nothing(self, house):
        """A load that fails raises its error; id, memory and engine are free again."""
        house = house()
        backend = house.engine("chat")
        house.scripts["chat"].fail("load")
        with pytest.raises(ModelLoadError, match="scripted"):
            house.manager.load("chat", backend=backend)
        assert house.ids == []
        assert house.manager.budget.holders == {}
        house.load("chat")

    def test_a_failed_context_leaves_nothing(self, house):
        """If the model is loaded and its context fails, the model is freed, too."""
        house = house()
        backend = house.engine("chat")
        house.scripts["chat"].fail("create_context")
        with pytest.raises(Exception, match="scripted"):
            house.manager.load("chat", backend=backend)
        assert backend.ledger.live == {}
        assert house.manager.budget.holders == {}

    def test_a_failed_background_load_is_told(self, house):
        """It is listed as failed with its reason, until the id is loaded again."""
        house = house()
        backend = house.engine("chat")
        house.scripts["chat"].fail("load")
        house.manager.load("chat", backend=backend, wait=False)
        house.settle("chat")
        info = house.manager.info("chat")
        assert (info["status"], "scripted" in info["error"]) == ("failed", True)
        with pytest.raises(NotReadyError, match=r"failed: .*scripted"):
            house.manager.generate("chat", "hi")
        house.load("chat")
        assert house.manager.loaded("chat")

    def test_an_error_keeps_no_frame_alive(self, house):
        """What a failed background load had in its frames is not kept."""
        house = house()
        backend = house.engine("chat")
        house.scripts["chat"].fail("load")
        house.manager.load("chat", backend=backend, wait=False)
        house.settle("chat")
        gone = weakref.ref(backend)
        house.backends.clear()
        del backend
        house.manager.unload("chat")
        gc.collect()
        assert gone() is None


class TestBackground:
    def test_requests_for_a_loading_model_say_so(self, house):
        """Until it is ready, a request is refused with the status, not queued."""
        house = house()
        gate = house.gated("chat", "load")
        gate.wait_entered()
        with pytest.raises(NotReadyError, match="is loading") as caught:
            house.manager.generate("chat", "hi")
        assert caught.value.status == "loading"
        assert not house.manager.loaded("chat")
        gate.open()
        house.settle("chat")
        assert house.manager.loaded("chat")

    def test_a_load_blocks_nothing_else(self, house):
        """While one load runs, others load, answer, unload and become the default."""
        house = house()
        house.load("old", script={"answer": "yes"})
        gate = house.gated("slow", "load")
        gate.wait_entered()
        house.load("new")
        house.manager.set_default("old")
        assert house.manager.generate(DEFAULT, "well") == "yes"
        house.manager.unload("new")
        assert house.manager.info("slow")["status"] == "loading"
        gate.open()
        house.settle("slow")

    def test_progress_is_told(self, house):
        """Progress rises from 0 to 1, and ``info`` shows the last of it."""
        house = house()
        seen: list[float] = []
        house.load("chat", progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == house.manager.info("chat")["progress"] == 1.0

    def test_progress_can_cancel(self, house):
        """``progress`` returning False ends the load with nothing left."""
        house = house()
        with pytest.raises(OperationCancelledError):
            house.load("chat", progress=lambda share: False)
        assert house.ids == []
        assert house.manager.budget.holders == {}

    def test_unloading_cancels_a_load(self, house):
        """A model that is unloaded while it loads is gone when the engine lets go."""
        house = house()
        gate = house.gated("chat", "load")
        gate.wait_entered()
        unload = house.thread(lambda: house.manager.unload("chat"))
        gate.open()
        unload.join()
        assert house.ids == []
        assert house.manager.budget.holders == {}

    def test_a_cancelled_task_cancels_its_load(self, house):
        """Cancelling ``aload`` ends the load, and the task does not wait for it."""
        house = house()
        backend = house.engine("chat")
        gate = house.scripts["chat"].gate("load")

        async def main() -> None:
            async with anyio.create_task_group() as tasks:

                async def load() -> None:
                    await house.manager.aload("chat", backend=backend)

                tasks.start_soon(load)
                await anyio.to_thread.run_sync(gate.wait_entered)
                tasks.cancel_scope.cancel()

        anyio.run(main)
        entry = house.manager._table.get("chat")
        gate.open()
        assert entry.settled.wait(20)
        assert house.manager.budget.holders == {}

    def test_a_load_that_is_over_cannot_be_cancelled(self, house):
        """What was cancelled too late is unloaded, and not kept by accident."""
        house = house()
        house.load("chat")
        house.manager._cancel_load("chat")
        assert not house.manager._table.get("chat").cancelled


class TestManagers:
    def test_one_manager_of_a_name(self, house):
        """A second one of the same name is refused until the first is disposed."""
        first = house(name="one").manager
        with pytest.raises(AlreadyStartedError, match="'one'"):
            ModelManager(name="one")
        assert ModelManager.running("one") is first
        house(name="two")
        first.dispose()
        assert ModelManager.running("one") is None
        house(name="one")

    def test_models_can_be_given_at_the_start(self):
        """Models that are given are loaded in the background."""
        script = {"backend": null_backend(), "context_size": 64}
        with ModelManager(models=[("chat", None, script)], name=None) as manager:
            assert manager._table.get("chat").settled.wait(20)
            assert manager.loaded("chat")

    def test_a_disposed_manager_refuses(self, house):
        """After its disposal everything raises `DisposedError`, and nothing lives."""
        house = house()
        house.load("chat")
        house.manager.dispose()
        for act in (
            lambda: house.manager.list(),
            lambda: house.manager.generate("chat", "hi"),
            lambda: house.load("other"),
        ):
            with pytest.raises(DisposedError):
                act()
        assert house.backends[0].ledger.live == {}

    def test_disposing_ends_a_load(self, house):
        """A load that runs when the manager is disposed ends, and leaves nothing."""
        house = house()
        gate = house.gated("chat", "load")
        gate.wait_entered()
        entry = house.manager._table.get("chat")
        dispose = house.thread(house.manager.dispose)
        gate.open()
        dispose.join()
        assert entry.settled.wait(20)
        assert house.manager.budget.holders == {}


class TestLookUps:
    def test_unknown_ids_name_near_ones(self, house):
        """An unknown id is an error with near matches, never another model."""
        house = house()
        house.load("chat")
        with pytest.raises(NotLoadedError, match="did you mean 'chat'"):
            house.manager.generate("chatt", "hi")
        with pytest.raises(NotLoadedError, match="there are 'chat'"):
            house.manager.info(17)

    def test_no_default_is_an_error(self, house):
        """A request for the default without one says how to choose one."""
        manager = house().manager
        assert manager.default() is None
        with pytest.raises(NotLoadedError, match="set_default"):
            manager.generate(DEFAULT, "hi")
        with pytest.raises(NotLoadedError):
            manager.set_default("chat")

    def test_the_default_goes_with_its_model(self, house):
        """Unloading the default model leaves no default, not another one."""
        house = house()
        house.load("one", default=True)
        house.load("two")
        assert house.manager.default() == "one"
        house.manager.unload("one")
        assert house.manager.default() is None

    def test_routes(self, house):
        """A route tells the mode, and the context or the model behind it."""
        house = house()
        house.load("chat")
        house.load("vectors", capabilities=["embed"])
        mode, target, info = house.manager.route("chat")
        assert (mode, info["id"]) == ("server", "chat")
        assert target.params.sequences == 4
        mode, target, _ = house.manager.route("vectors")
        assert (mode, target) == ("direct", house.manager.fetch_model("vectors"))

    def test_infos_hold_no_handles(self, house):
        """``info`` and ``list`` are plain values."""
        house = house()
        house.load("chat")
        (info,) = house.manager.list()
        plain = (str, int, float, bool, type(None), list, dict)
        assert all(isinstance(value, plain) for value in info.values())
