"""A place to install plugins into, alone in the world."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from llmcore.plugins import Registry
from llmcore.plugins.discovery import forget_what_was_found
from llmcore.plugins.memory import Memory
from llmcore.plugins.trials import Trials

from .kit import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site; the plugins that are installed for real are switched off."""
    present = entry_points(group="llmcore.backends")
    names = [f"{point.dist.name}:{point.name}" for point in present if point.dist]
    monkeypatch.setenv("LLMCORE_DISABLED_PLUGINS", ",".join(names))
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", "0")
    for variable in ("LLMCORE_PLUGINS", "LLMCORE_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    yield Site(root)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(root)):
            del sys.modules[name]
    forget_what_was_found()


@pytest.fixture
def registry(site: Site) -> Registry:
    """A registry that has not been asked anything yet, and tries nothing."""
    return Registry()


@pytest.fixture
def cautious(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Registry]:
    """Makes registries, as of one process after the other, that try what they find."""
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", "20")
    return lambda: Registry(trials=Trials(Memory(tmp_path / "cache" / "trials.json")))
