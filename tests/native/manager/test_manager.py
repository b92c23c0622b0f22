"""A manager of real models on llama.cpp."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcore.errors import BackendCrashedError, InsufficientMemoryError
from llmcore.manager import ModelManager
from llmcore.memory.machine import process_rss

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")

QUESTION = [("user", "What is the capital of France? Answer in one word.")]
GREEDY = {"max_tokens": 8, "temperature": 0.0}
OPTIONS: dict[str, Any] = {"backend": "llama_cpp", "context_size": 256, "sequences": 2}


@pytest.fixture(name="manager")
def _manager() -> Iterator[ModelManager]:
    with ModelManager(budget=None, name=None) as manager:
        yield manager


def test_a_conversation(manager: ModelManager, smollm2: Path) -> None:
    """A chat model answers rightly, and its next turn evaluates only what is new."""
    manager.load("chat", smollm2, **OPTIONS)
    answer = manager.chat("chat", QUESTION, **GREEDY)
    assert "Paris" in answer
    talk = [*QUESTION, ("assistant", answer), ("user", "And of Italy?")]
    result = manager.stream_chat("chat", talk, **GREEDY).result
    assert result.cache.reused > result.cache.evaluated


def test_embeddings(manager: ModelManager, tmp_path: Path) -> None:
    """An embedding model gives a vector of its size, the same for the same text."""
    from llmcore_conformance.models import tiny_embedding

    path = tiny_embedding(tmp_path / "embedding.gguf")
    manager.load("v", path, capabilities=["embed"], backend="llama_cpp")
    vector = manager.embed("v", "hello there")
    assert len(vector) == manager.fetch_model("v").info.embedding_size
    assert manager.embed("v", "hello there") == vector
    assert manager.embed("v", "another text") != vector


def test_the_header_says_enough(manager: ModelManager, smollm2: Path) -> None:
    """What is reserved by the header is what the engine then reports, within 5 %."""
    manager.load("chat", smollm2, **OPTIONS)
    model = manager.fetch_model("chat")
    context = manager.route("chat").target
    for account in (model.account(), context.account()):
        assert account.error is not None
        assert abs(account.error) < 0.05, account.explain()


def test_memory_comes_back(manager: ModelManager, smollm2: Path) -> None:
    """Unloading gives the weights back to the system, with the collector off."""
    manager.load("warm", smollm2, **OPTIONS)
    manager.unload("warm")
    gc.disable()
    try:
        before = process_rss() or 0
        manager.load("chat", smollm2, mmap=False, **OPTIONS)
        manager.chat("chat", QUESTION, **GREEDY)
        loaded = process_rss() or 0
        manager.unload("chat")
        after = process_rss() or 0
    finally:
        gc.enable()
    weights = smollm2.stat().st_size
    assert loaded - before > weights
    assert after - before < weights / 10


def test_with_less_memory(smollm2: Path) -> None:
    """With ``fit`` a model that does not fit gets less, says what, and answers."""
    with ModelManager(budget=200_000_000, policy="fit", name=None) as manager:
        manager.load("chat", smollm2, backend="llama_cpp", sequences=1)
        assert manager.info("chat")["given_up"]
        assert "Paris" in manager.chat("chat", QUESTION, **GREEDY)
        assert sum(manager.budget.reserved.values()) <= 200_000_000


def test_what_was_given_is_kept(smollm2: Path) -> None:
    """What the caller gave is not given up: then it is refused, and nothing stays."""
    given = {"context_size": 8192, "kv_type_k": "f16", "kv_type_v": "f16"}
    with ModelManager(budget=200_000_000, policy="fit", name=None) as manager:
        with pytest.raises(InsufficientMemoryError) as caught:
            manager.load("chat", smollm2, backend="llama_cpp", **given)
        assert caught.value.account.steps
        assert manager.budget.holders == {}


def test_fitting_evicts_first(smollm2: Path) -> None:
    """With ``fit`` an idle model goes before anything of the new one is given up."""
    with ModelManager(budget=400_000_000, policy="fit", name=None) as manager:
        manager.load("idle", smollm2, **OPTIONS)
        manager.load("new", smollm2, **OPTIONS)
        assert [info["id"] for info in manager.list()] == ["new"]
        (given_up,) = manager.info("new")["given_up"]
        assert given_up.startswith("evict idle")


def child_of(manager: ModelManager, id: str) -> int:
    """The process that a model's engine runs in."""
    with manager.fetch_model(id)._llama._use() as backend:
        return int(backend.pid)


def test_a_killed_engine_is_started_again(
    manager: ModelManager, smollm2: Path, tiny_model: Path
) -> None:
    """After ``kill -9`` of one engine the others go on, and it serves again."""
    manager.load("chat", smollm2, isolation="process", **OPTIONS)
    manager.load("other", tiny_model, **OPTIONS)
    answer = manager.chat("chat", QUESTION, **GREEDY)
    other = manager.stream("other", "once", **GREEDY)
    entry = manager._table.get("chat")
    os.kill(child_of(manager, "chat"), signal.SIGKILL)
    with pytest.raises(BackendCrashedError):
        manager.chat("chat", QUESTION, **GREEDY)
    assert len(other.result.tokens) == 8
    while not entry.crashes:
        pass
    assert entry.settled.wait(60)
    assert manager.info("chat")["status"] == "ready"
    assert manager.chat("chat", QUESTION, **GREEDY) == answer
