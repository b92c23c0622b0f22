"""A hub on this machine, and a cache that nobody shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmcore.plugins
from llmcore.plugins import Registry
from llmcore.sources import fetching, transfer

from ..plugins.conftest import registry, site  # noqa: F401
from .hub_server import Hub, Server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model of 100 000 bytes; tries follow without a pause."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no/such/token")
    hub = Hub({"a.gguf": bytes(range(250)) * 400, "folder/b.gguf": b"b" * 1000})
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(transfer, "PAUSE", 0)
    with Server(hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache."""
    return tmp_path / "cache"


@pytest.fixture
def plugins(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:  # noqa: F811
    """The plugins of a test in place of those that are installed."""
    monkeypatch.setattr(llmcore.plugins, "registry", lambda: registry)
    monkeypatch.setattr(fetching, "registry", lambda: registry)
    fetching._made.cache_clear()
    return registry
