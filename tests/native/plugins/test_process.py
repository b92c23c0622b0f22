"""The registry of a whole process, and a plugin that pip installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmcore.plugins import registry

from ...unit.plugins.kit import ENGINE, Site, plugin_code

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "llmcore-packaged"
version = "1.0"

[project.entry-points."llmcore.backends"]
packaged = "llmcore_packaged"
"""


def test_one_per_process() -> None:
    """The registry of the process is always the same object."""
    assert registry() is registry()


@pytest.mark.parametrize("statement", ["import llmcore.plugins", "import llmcore"])
def test_light_import(site: Site, statement: str) -> None:
    """Importing the registry imports no plugin and no pluggy."""
    module = site.install()

    loaded = site.run(f"{statement}\nimport sys\nprint(*sys.modules)").split()

    assert not {"pluggy", "packaging", "numpy", module} & set(loaded)


def test_light_loading(site: Site) -> None:
    """Loading all plugins, the built-in ones included, imports no engine."""
    module = site.install()

    loaded = site.run(
        "import sys\nfrom llmcore.plugins import registry\n"
        "assert 'mine' in registry().backends\nprint(*sys.modules)",
        LLMCORE_DISABLED_PLUGINS="",
    ).split()

    assert module in loaded
    assert not {"numpy", "llama_cpp", "ctransformers", "llmcore.spi"} & set(loaded)


def test_reload_plugins(site: Site) -> None:
    """The registry of the process finds what was installed after its first use."""
    site.install()
    about = site.root / "llmcore_mine-1.0.dist-info"
    hidden = about.rename(site.root / "hidden")

    answer = site.run(
        "import os\nfrom llmcore.plugins import registry, reload_plugins\n"
        "print('mine' in registry().backends)\n"
        f"before = os.stat({str(site.root)!r}).st_mtime_ns\n"
        f"os.rename({str(hidden)!r}, {str(about)!r})\n"
        # the clock of a file system is coarse: make sure that it shows no change
        f"os.utime({str(site.root)!r}, ns=(before, before))\n"
        "print('mine' in registry().backends)\n"
        "reload_plugins()\nprint('mine' in registry().backends)"
    )

    assert answer.split() == ["False", "False", "True"]


def test_asks_while_loading(site: Site) -> None:
    """A plugin that asks for backends at import fails instead of waiting for ever."""
    site.install(code="from llmcore.plugins import registry\nregistry().backends")

    answer = site.run(
        "import logging\nlogging.disable()\nfrom llmcore.plugins import registry\n"
        "print([p.message for p in registry().problems])"
    )

    assert "RuntimeError: plugins are being loaded" in answer


def test_emit_event(site: Site) -> None:
    """The events of the process reach the plugins of the process."""
    listener = (
        "\n@hookimpl\ndef llmcore_resource_event(event):\n    print(event.label)\n"
    )
    site.install(code=plugin_code() + listener)

    answer = site.run(
        "from llmcore.plugins import emit_event, registry\n"
        "emit_event('model', 'created', 'too early', 1)\n"
        "registry().backends\n"
        "emit_event('model', 'created', 'in time', 2)"
    )

    assert answer == "in time"


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ["pip", "hatchling"])),
    reason="needs pip and hatchling",
)
def test_packaged(site: Site, tmp_path: Path) -> None:
    """A plugin that is packaged and installed in the usual way works."""
    project = tmp_path / "project"
    package = project / "llmcore_packaged"
    package.mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    code = plugin_code("packaged", "llmcore_packaged.engine:Engine")
    (package / "__init__.py").write_text(code)
    (package / "engine.py").write_text(ENGINE)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]

    subprocess.run(
        [*pip, *offline, "--target", str(site.root), str(project)],
        check=True,
        timeout=120,
        # the warnings of pip are not ours to judge
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"},
    )
    answer = site.run(
        "from llmcore.plugins import registry\n"
        "print(registry().create('packaged').devices())\n"
        "print(registry().get('packaged').distribution)"
    )

    assert answer.splitlines() == ["[]", "llmcore-packaged"]
