"""A manager loads from a hub: what it reserves, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcore.errors import InsufficientMemoryError, NotReadyError, SourceNotFoundError
from llmcore.manager import ModelManager

from ..fuzz_model_file import tiny_image
from .hub_server import Hub

A = "hf:owner/models/a.gguf"


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache as the usual one."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_loaded(hub: Hub) -> None:
    """A model is fetched and loaded; a second time it is here already."""
    hub.files["a.gguf"] = bytes(tiny_image())
    with ModelManager(budget=None, name=None) as manager:
        manager.load("m", A, backend="reference", sequences=1, context_size=16)
        asked = len(hub.paths())
        manager.load("n", A, backend="reference", sequences=1, context_size=16)
        assert manager.loaded("m")
        assert manager.loaded("n")
        assert len(hub.paths()) == asked


def test_refused_before_the_download(hub: Hub, cache: Path) -> None:
    """A model that does not fit is refused by its header: nothing was fetched."""
    image = bytes(tiny_image())
    hub.files["a.gguf"] = image + bytes(4 << 20)
    with ModelManager(budget=1000, name=None) as manager:
        with pytest.raises(InsufficientMemoryError):
            manager.load("m", A, backend="reference", sequences=1, context_size=16)
        assert manager.budget.holders == {}
    assert list(cache.rglob("blobs/*")) == []


def test_not_there(hub: Hub) -> None:
    """A file that the hub has not is told with those that are like it."""
    with ModelManager(budget=None, name=None) as manager:
        with pytest.raises(SourceNotFoundError, match=r"a\.gguf"):
            manager.load("m", "hf:owner/models/b.gguf", backend="reference")
        missing = "hf:owner/models/b.gguf"
        manager.load("m", missing, backend="reference", wait=False)
        assert manager._table.get("m").settled.wait(20)
        with pytest.raises(NotReadyError, match="failed"):
            manager.generate("m", "hi")
