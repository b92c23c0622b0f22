"""Plugins that fail, or lie, in all they do: a line in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmcore
from llmcore.backends.null.context import NullContext
from llmcore.errors import CapabilityError
from llmcore.plugins import BackendRequest, Registry
from llmcore.spi import BackendContext
from llmcore.testing import null_backend

from .kit import HEAD, Site, plugin_code, problem_of

RAISES = f"""{HEAD}
INFO = BackendInfo(name="mine", factory="engine:Engine")

@hookimpl
def llmcore_backend_info():
    raise OSError("info")

@hookimpl
def llmcore_select_backend():
    raise OSError("select")

@hookimpl
def llmcore_resource_event():
    raise OSError("event")
"""


def test_fails_in_all(site: Site, registry: Registry) -> None:
    """A plugin that raises in every hook is recorded for each, and harms nobody."""
    site.install("llmcore-bad", RAISES, plugin="bad")
    site.install()

    assert registry.select(BackendRequest()).name == "mine"
    for number in range(2):
        registry.emit("model", "created", "model 1", number)

    stages = [problem.stage for problem in registry.problems]
    assert stages == ["info", "select", "event"]
    assert {problem.plugin for problem in registry.problems} == {"bad"}


def test_claims_a_format_alone(site: Site, registry: Registry) -> None:
    """A plugin whose facts have wrong types is refused before anything uses them."""
    site.install(code=plugin_code(formats="gguf"))

    assert "must be <class 'tuple'>" in problem_of(registry).message


def test_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capability that is declared and not there is a clear error at its first use."""
    monkeypatch.setattr(NullContext, "save_state", BackendContext.save_state)
    with llmcore.get_llama(null_backend()) as llama:
        sequence = llama.load_model().create_context(context_size=64).get_sequence()
        sequence.evaluate([1, 2])

        with pytest.raises(CapabilityError, match="NullContext cannot save"):
            sequence.save(tmp_path / "state")

        sequence.evaluate([3])
        assert sequence.tokens == [1, 2, 3]
