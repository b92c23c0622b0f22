"""The supervisor: what happens when an engine under a manager dies."""

from __future__ import annotations

from typing import Any

import pytest

import llmcore
from llmcore.errors import BackendCrashedError, NotReadyError
from llmcore.testing import NullScript, null_backend


@pytest.fixture(name="house")
def _house(house, monkeypatch):
    """A manager that finds a new engine, with the same script, each time it asks."""
    house = house(budget=1_000_000)
    scripts = house.scripts

    def get_llama(*, backend: Any, budget: Any) -> llmcore.Llama:
        made = null_backend(scripts[backend])
        house.backends.append(made)
        return llmcore.get_llama(made, budget=budget)

    monkeypatch.setattr("llmcore.manager.loading.get_llama", get_llama)
    return house


def load(house, id, *, answer=None, **options):
    house.scripts[id] = NullScript(
        answer=answer, model_bytes=400_000, kv_bytes_per_token=0
    )
    house.manager.load(id, backend=id, context_size=64, **options)


def crash(house, id):
    """Have the engine of a model die in a request."""
    house.scripts[id].fail("decode", error=BackendCrashedError)
    with pytest.raises(BackendCrashedError):
        house.manager.generate(id, "hi")


def wait_for(house, id, status):
    while house.manager.info(id)["status"] != status:
        pass


class TestRestart:
    def test_a_crashed_model_is_loaded_again(self, house):
        """The request gets `BackendCrashedError`, and the model serves again."""
        load(house, "m", answer="here again")
        crash(house, "m")
        wait_for(house, "m", "ready")
        assert house.manager.generate("m", "are you there?") == "here again"
        assert house.manager.info("m")["crashes"] == 1

    def test_the_others_notice_nothing(self, house):
        """The other models, and what runs on them, go on."""
        load(house, "m")
        load(house, "other", answer="still here")
        stream = house.manager.stream("other", "hello?")
        crash(house, "m")
        assert stream.result.text == "still here"

    def test_too_many_crashes_end_it(self, house):
        """After ``restarts`` of them within a minute the model stays failed."""
        load(house, "m", restarts=1)
        crash(house, "m")
        wait_for(house, "m", "ready")
        crash(house, "m")
        wait_for(house, "m", "failed")
        with pytest.raises(NotReadyError, match="crashed 2 times"):
            house.manager.generate("m", "hi")
        load(house, "m")
        assert house.manager.loaded("m")

    def test_the_memory_of_a_dead_engine_is_free(self, house):
        """What the dead engine had reserved is released before it is loaded again."""
        load(house, "m", reserve=800_000)
        crash(house, "m")
        wait_for(house, "m", "ready")
        assert sum(house.manager.budget.holders.values()) == 400_000

    def test_a_backend_object_cannot_be_started_again(self, house, monkeypatch):
        """A model on a backend object fails for good, and says why."""
        monkeypatch.setattr("llmcore.manager.loading.get_llama", llmcore.get_llama)
        house.load("m", size=100_000)
        crash(house, "m")
        wait_for(house, "m", "failed")
        with pytest.raises(NotReadyError, match="object cannot be started again"):
            house.manager.generate("m", "hi")
