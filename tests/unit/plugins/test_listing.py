"""`llmcore backends` over plugins that are installed for real."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from llmcore.cli import app
from llmcore.plugins import Registry

from .kit import Site, plugin_code


def test_brackets(
    site: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in brackets is shown: it may be the very extra that is missing."""
    monkeypatch.setattr("llmcore.plugins._default", registry)
    monkeypatch.setenv("COLUMNS", "160")
    site.install(code=plugin_code(summary="see pip install 'mine[all]'"))

    assert "pip install 'mine[all]'" in CliRunner().invoke(app, ["backends"]).output
