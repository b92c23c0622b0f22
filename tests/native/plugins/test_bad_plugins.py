"""Plugins that hang, crash or print at import, which is tried in a child first."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcore.errors import BackendUnavailableError
from llmcore.plugins import BackendRequest, Registry

from ...unit.plugins.kit import Site, engine_code, plugin_code, problem_of
from ...unit.plugins.test_bad_plugins import RAISES

Cautious = Callable[[], Registry]


def test_hangs(site: Site, cautious: Cautious, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose import never ends is a problem, and its neighbours work."""
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", "1")
    module = site.install(code="import threading\nthreading.Event().wait()")
    registry = cautious()

    assert "no answer within 1 s" in problem_of(registry).message
    assert problem_of(registry).stage == "import"
    assert module not in sys.modules
    with pytest.raises(BackendUnavailableError, match="no answer within"):
        registry.get("mine")


def test_neighbours_of_a_hanging_one(
    site: Site, cautious: Cautious, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backends beside a plugin that hangs can be used."""
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", "5")
    site.install("llmcore-a", "import os; os.read(os.pipe()[0], 1)", plugin="a")
    site.write("engine", engine_code())
    site.install()

    assert cautious().select(BackendRequest()).name == "mine"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_crashes(site: Site, cautious: Cautious) -> None:
    """A plugin whose import crashes is a problem, again and again, until repaired."""
    module = site.install(code="import ctypes; ctypes.string_at(0)")
    for _ in range(2):
        assert "crashed with SIGSEGV" in problem_of(cautious()).message

    site.write(module, plugin_code() + "# longer than before")

    assert cautious().problems == []


def test_prints(site: Site, cautious: Cautious) -> None:
    """A plugin that prints is a problem that leaves it usable."""
    site.write("engine", engine_code())
    site.install(code=f"print('hello')\n{plugin_code()}")
    registry = cautious()

    assert registry.select(BackendRequest()).name == "mine"
    problem = problem_of(registry)
    assert problem.stage == "noise"
    assert "writes to standard output: 'hello'" in problem.message


def test_in_the_list(site: Site, tmp_path: Path) -> None:
    """``llmcore doctor`` shows all of it in lines, and its exit code says so."""
    site.install("llmcore-bad", RAISES, plugin="bad")
    site.install(
        "llmcore-loud", f"print('hello')\n{plugin_code('loud')}", plugin="loud"
    )
    site.install("llmcore-old", plugin_code("old", spec="0.9"), plugin="old")
    site.install("llmcore-twin", plugin_code("old"), plugin="twin")
    site.write("engine", engine_code("print('engine')"))
    output = site.run(
        "import sys\nfrom llmcore.cli import main\nsys.argv[1:] = ['doctor']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print('exit', end.code)",
        LLMCORE_TRIAL_SECONDS="20",
        XDG_CACHE_HOME=str(tmp_path),
    )

    assert "problem: plugin 'bad' of llmcore-bad: failed at stage 'info'" in output
    assert "problem: plugin 'loud' of llmcore-loud: its import writes" in output
    assert "problem: plugin 'old' of llmcore-old: backend 'old' was written" in output
    assert "is also claimed by llmcore-twin:old" in output
    assert "loud: works" in output
    assert "loud: writes to standard output: 'engine'" in output
    assert output.endswith("exit 1")
