"""A plugin that is wrong in any way is a problem in a list, and only that plugin is."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from llmcore.errors import LlmcoreError, PluginErrorGroup
from llmcore.plugins import PluginProblem, Registry

from .kit import HEAD, Site, plugin_code, problem_of

BROKEN = {
    "import that fails": ("import", "import no_such_engine", "ModuleNotFoundError"),
    "exit at import": ("import", "raise SystemExit(3)", "SystemExit: 3"),
    "other BaseException at import": ("import", "raise BaseException('no')", "no"),
    "syntax error": ("import", "def", "SyntaxError"),
    "bad value": ("import", plugin_code("not a name"), "name must be an identifier"),
    "no hook": ("register", "def llmcore_backend_info(): ...", "implements no hook"),
    "misspelt hook": (
        "register",
        plugin_code().replace("llmcore_backend_info", "llmcore_backend_inf"),
        "unknown hook 'llmcore_backend_inf', did you mean 'llmcore_backend_info'",
    ),
    "unknown argument": (
        "register",
        plugin_code().replace("_info()", "_info(colour)"),
        "PluginValidationError",
    ),
    "info that raises": (
        "info",
        f"{HEAD}\n@hookimpl\ndef llmcore_backend_info():\n    raise OSError('disk')",
        "OSError: disk",
    ),
    "info that exits": (
        "info",
        f"{HEAD}\n@hookimpl\ndef llmcore_backend_info():\n    raise SystemExit",
        "SystemExit",
    ),
    "info of another type": (
        "validate",
        f"{HEAD}\n@hookimpl\ndef llmcore_backend_info():\n    return 'mine'",
        "must return a BackendInfo or a list of them, got 'mine'",
    ),
    "malformed spec": ("validate", plugin_code(spec="one"), "spec must look like"),
    "malformed requirement": (
        "validate",
        plugin_code(requires=("=1",)),
        "InvalidRequirement",
    ),
    "newer major": (
        "incompatible",
        plugin_code(spec="2.0"),
        "--upgrade llmcore-runtime",
    ),
    "newer minor": (
        "incompatible",
        plugin_code(spec="1.99"),
        "spec 1.99 and this core",
    ),
    "older major": ("incompatible", plugin_code(spec="0.9"), "--upgrade llmcore-mine"),
    "wrong version": (
        "incompatible",
        plugin_code(requires=("attrs<1",)),
        "needs attrs<1 (",
    ),
}


@pytest.mark.parametrize(("stage", "code", "words"), BROKEN.values(), ids=BROKEN)
def test_problem(
    site: Site, registry: Registry, stage: str, code: str, words: str
) -> None:
    """Whatever a plugin does wrong is recorded with its origin, stage and cause."""
    site.install(code=code)

    problem = problem_of(registry)

    assert (problem.plugin, problem.distribution) == ("mine", "llmcore-mine")
    assert problem.stage == stage
    assert words in problem.message


@pytest.mark.parametrize(("stage", "code", "words"), BROKEN.values(), ids=BROKEN)
def test_neighbours(
    site: Site, registry: Registry, stage: str, code: str, words: str
) -> None:
    """Plugins that come before and after a broken one work as if it were not there."""
    site.install("llmcore-a", plugin="a")
    site.install("llmcore-mine", code)
    site.install("llmcore-z", plugin="z")

    assert registry.get("a").distribution == "llmcore-a"
    assert registry.get("z").distribution == "llmcore-z"


@pytest.mark.parametrize("hook", ["llmcore_select_backend(colour)", "llmcore_slect()"])
def test_rollback(site: Site, registry: Registry, hook: str) -> None:
    """Of a plugin that is refused, no other hook stays registered."""
    listener = "\n@hookimpl\ndef llmcore_resource_event(event): HEARD.append(event)\n"
    refused = f"\n@hookimpl\ndef {hook}: ...\n"
    module = site.install(code=f"{HEAD}HEARD = []\n{listener}{refused}")
    assert problem_of(registry).stage == "register"

    registry.emit("model", "created", "model 1", 1)

    assert sys.modules[module].HEARD == []


def test_optional_hook(site: Site, registry: Registry) -> None:
    """A hook that the plugin itself calls optional may be unknown."""
    unknown = "\n@hookimpl(optionalhook=True)\ndef llmcore_of_the_future(): ...\n"
    site.install(code=plugin_code() + unknown)

    assert registry.get("mine").problem is None
    assert registry.problems == []


def test_not_a_module(site: Site, registry: Registry) -> None:
    """An entry point that names an object in a module is refused."""
    site.write("objects", f"{plugin_code()}\nPLUGIN = {{}}\n")
    site.describe(
        "llmcore-mine", entry_points="[llmcore.backends]\nmine = objects:PLUGIN\n"
    )

    assert (
        "must name a module, not an object of type dict" in problem_of(registry).message
    )


def test_keyboard_interrupt(site: Site, registry: Registry) -> None:
    """Ctrl-C during an import passes, and the next use loads again."""
    module = site.install(code="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        _ = registry.backends

    site.write(module, plugin_code() + "# longer than before")

    assert registry.get("mine").problem is None


def test_several_backends(site: Site, registry: Registry) -> None:
    """A plugin can provide a list of backends."""
    other = "\nOTHER = BackendInfo(name='other', factory='engine:Engine')\n"
    several = plugin_code().replace("return INFO", "return [INFO, OTHER]")
    site.install(code=several + other)

    assert list(registry.backends) == ["mine", "other"]
    assert registry.backends["other"].entry_point == "mine"


def test_one_bad_of_several(site: Site, registry: Registry) -> None:
    """Of a list of backends only the bad one is refused."""
    site.install(code=plugin_code().replace("return INFO", "return [None, INFO, 3]"))

    assert list(registry.backends) == ["mine"]
    assert [problem.stage for problem in registry.problems] == ["validate"] * 2


def test_slow(site: Site) -> None:
    """A slow import is a problem that leaves the plugin usable."""
    site.install()
    registry = Registry(clock=iter([10.0, 11.5]).__next__)

    assert registry.get("mine").problem is None
    assert problem_of(registry).stage == "slow"
    assert "its import took 1.5 s" in problem_of(registry).message


def test_not_slow(site: Site) -> None:
    """An import that takes a second at most is not called slow."""
    site.install()

    assert Registry(clock=iter([10.0, 11.0]).__next__).problems == []


def test_same_entry_point_name(site: Site, registry: Registry) -> None:
    """Two distributions with one entry point name are both loaded."""
    site.install("llmcore-a", plugin_code("one"), plugin="same")
    site.install("llmcore-b", plugin_code("two"), plugin="same")

    assert registry.get("one").distribution == "llmcore-a"
    assert registry.get("two").distribution == "llmcore-b"


def test_same_module(site: Site, registry: Registry) -> None:
    """Two distributions with one module are one plugin and a problem."""
    site.install("llmcore-a", module="shared")
    site.install("llmcore-b", module="shared")

    assert registry.get("mine").distribution == "llmcore-a"
    assert "is already plugin 'llmcore-a:mine'" in problem_of(registry).message


def test_twice_in_one_distribution(site: Site, registry: Registry) -> None:
    """A second entry point of one name is refused and does not harm the first."""
    site.write("first", plugin_code("one"))
    site.write("second", plugin_code("two"))
    site.describe(
        "llmcore-mine", entry_points="[llmcore.backends]\nmine=first\nmine=second\n"
    )

    assert list(registry.backends) == ["one"]
    assert "names it twice" in problem_of(registry).message


def test_bad_str(site: Site, registry: Registry) -> None:
    """An exception whose text cannot be made is recorded all the same."""
    code = "class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad"
    site.install(code=code)

    assert "Bad" in problem_of(registry).message


def test_log(site: Site, registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    """Each problem is logged once, as a warning that names the plugin."""
    site.install(code="raise OSError('disk')")

    with caplog.at_level(logging.WARNING, "llmcore.plugins"):
        _ = registry.backends
        _ = registry.problems

    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("plugin 'mine' of llmcore-mine: failed at")


def test_strict(
    site: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strict mode all problems are raised at once, each with its cause."""
    monkeypatch.setenv("LLMCORE_STRICT_PLUGINS", "1")
    site.install("llmcore-a", "raise OSError('disk')", plugin="a")
    site.install("llmcore-b", "raise SystemExit", plugin="b")

    with pytest.raises(PluginErrorGroup) as caught:
        _ = registry.backends

    assert all(isinstance(error, LlmcoreError) for error in caught.value.exceptions)
    causes = [type(error.__cause__) for error in caught.value.exceptions]
    assert causes == [OSError, SystemExit]


def test_strict_but_slow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strict mode forgives a slow import and an extra that is not installed."""
    monkeypatch.setenv("LLMCORE_STRICT_PLUGINS", "1")
    site.install(code=plugin_code(requires=("no-such-engine",)))
    registry = Registry(clock=iter([0.0, 9.0]).__next__)

    assert list(registry.backends) == ["mine"]


def test_race(site: Site) -> None:
    """Threads that ask at the same time load the plugins once between them."""
    module = site.install()
    registry = Registry()
    barrier = threading.Barrier(8)
    seen = []

    def ask() -> None:
        barrier.wait()
        seen.append(registry.get("mine"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sys.modules[module].CALLS == [1]
    assert len({id(backend) for backend in seen}) == 1
    assert len(seen) == 8


def test_once(site: Site, registry: Registry) -> None:
    """Plugins are asked at the first use and not again."""
    module = site.install()
    assert module not in sys.modules

    for _ in range(3):
        _ = registry.backends

    assert sys.modules[module].CALLS == [1]


def test_reload(site: Site, registry: Registry) -> None:
    """Reloading finds what was installed meanwhile and forgets what was repaired."""
    module = site.install(code="raise OSError")
    assert problem_of(registry).stage == "import"
    site.write(module, plugin_code() + "# longer than before")
    site.install("llmcore-new", plugin="new")
    assert list(registry.backends) == []

    registry.reload()

    assert list(registry.backends) == ["mine", "new"]
    assert registry.problems == []


def test_reload_refused(
    site: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that strict mode refuses leaves the registry as it was."""
    site.install()
    assert registry.get("mine").problem is None
    site.install("llmcore-bad", "raise OSError", plugin="bad")
    monkeypatch.setenv("LLMCORE_STRICT_PLUGINS", "1")

    with pytest.raises(PluginErrorGroup):
        registry.reload()

    assert list(registry.backends) == ["mine"]


def test_problems_are_a_copy(site: Site, registry: Registry) -> None:
    """Nobody can change the registry through its list of problems."""
    site.install(code="raise OSError")

    registry.problems.clear()

    assert isinstance(problem_of(registry), PluginProblem)
