"""Asking for a backend by name, and making one."""

from __future__ import annotations

import sys

import pytest

from llmcore.errors import (
    AmbiguousBackendError,
    BackendUnavailableError,
    UnknownBackendError,
)
from llmcore.plugins import Registry
from llmcore.spi import Backend

from .kit import ENGINE, Site, plugin_code

EXTRAS = """\
Provides-Extra: all
Provides-Extra: fast
Requires-Dist: attrs
Requires-Dist: no_such.engine>=2; extra == "fast"
Requires-Dist: no-such-engine; extra == "all"
Requires-Dist: another; extra == "all"
"""


# -- names ----------------------------------------------------------------------------


def test_get(site: Site, registry: Registry) -> None:
    """A backend knows where it comes from."""
    site.install("llmcore-mine", plugin_code("engine_name"), plugin="point")

    backend = registry.get("engine_name")

    assert backend is registry.backends["engine_name"]
    assert (backend.distribution, backend.entry_point) == ("llmcore-mine", "point")
    assert backend.info.factory == "engine:Engine"


def test_get_qualified(site: Site, registry: Registry) -> None:
    """The qualified name works when it is not needed, too."""
    site.install()

    assert registry.get("llmcore-mine:mine") is registry.get("mine")


def test_unknown(site: Site, registry: Registry) -> None:
    """An unknown name is answered with names like it and all that is installed."""
    site.install(code=plugin_code("llama_cpp"))
    site.install("llmcore-other", plugin="other")

    with pytest.raises(UnknownBackendError) as caught:
        registry.get("lama_cpp")

    assert str(caught.value) == (
        "no installed plugin provides a backend named 'lama_cpp', "
        "did you mean 'llama_cpp'? (installed: llama_cpp, other)"
    )


def test_nothing_installed(site: Site, registry: Registry) -> None:
    """With no plugin at all the answer says so."""
    with pytest.raises(UnknownBackendError, match=r"\(installed: none\)"):
        registry.get("mine")


# -- two that claim one name ----------------------------------------------------------


@pytest.fixture
def rivals(site: Site) -> None:
    """Two distributions that both claim one name."""
    site.install("llmcore-a", plugin_code("mine", summary="of a"))
    site.install("llmcore-b", plugin_code("mine", summary="of b"))


@pytest.mark.usefixtures("rivals")
def test_conflict(registry: Registry) -> None:
    """Each of two claims to one name is a conflict that names the other."""
    found = [(p.distribution, p.stage, p.message) for p in registry.problems]

    assert [stage for _, stage, _ in found] == ["conflict"] * 2
    assert "also claimed by llmcore-b:mine" in found[0][2]
    assert "also claimed by llmcore-a:mine" in found[1][2]


@pytest.mark.usefixtures("rivals")
def test_ambiguous(registry: Registry) -> None:
    """Neither of two claims to a name wins it."""
    with pytest.raises(
        AmbiguousBackendError, match="'llmcore-a:mine' or 'llmcore-b:mine'"
    ):
        registry.get("mine")


@pytest.mark.usefixtures("rivals")
def test_qualified_claims(registry: Registry) -> None:
    """Each of two claims to a name can be had by its qualified name."""
    assert list(registry.backends) == ["llmcore-a:mine", "llmcore-b:mine"]
    assert registry.get("llmcore-a:mine").info.summary == "of a"
    assert registry.get("llmcore-b:mine").info.summary == "of b"


def test_conflict_within(site: Site, registry: Registry) -> None:
    """One distribution that claims a name twice gets it neither way."""
    site.install(code=plugin_code().replace("return INFO", "return [INFO, INFO]"))

    assert {problem.stage for problem in registry.problems} == {"conflict"}
    with pytest.raises(AmbiguousBackendError):
        registry.get("llmcore-mine:mine")


# -- known but not usable -------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "llmcore-mine:mine"])
def test_broken_plugin(site: Site, registry: Registry, name: str) -> None:
    """Asking for a plugin that failed gives its own exception as the cause."""
    site.install(code="raise OSError('disk')")

    with pytest.raises(BackendUnavailableError, match="OSError: disk") as caught:
        registry.get(name)

    assert isinstance(caught.value.__cause__, OSError)
    assert "reinstall or fix llmcore-mine" in str(caught.value)


def test_incompatible(site: Site, registry: Registry) -> None:
    """A backend for another spec is known and refused with both numbers."""
    site.install(code=plugin_code(spec="2.0"))

    assert "mine" in registry.backends
    with pytest.raises(BackendUnavailableError, match=r"spec 2\.0.*implements 1\.1"):
        registry.get("mine")


def test_older_minor(site: Site, registry: Registry) -> None:
    """A backend for an earlier minor version of the spec is welcome."""
    site.install(code=plugin_code(spec="1.0"))

    assert registry.get("mine").problem is None


def test_missing_requirement(site: Site, registry: Registry) -> None:
    """An engine that is not installed is named with the command that installs it."""
    site.install(code=plugin_code(requires=("no-such-engine>=2",)))

    with pytest.raises(
        BackendUnavailableError,
        match=r"needs no-such-engine>=2 \(not installed\): "
        r"pip install 'no-such-engine>=2'",
    ):
        registry.get("mine")


def test_missing_is_quiet(site: Site, registry: Registry) -> None:
    """An extra that nobody asked for is not a problem of the plugin."""
    site.install(code=plugin_code(requires=("no-such-engine",)))

    assert registry.problems == []
    problem = registry.backends["mine"].problem
    assert problem is not None
    assert problem.stage == "missing"


def test_extra(site: Site, registry: Registry) -> None:
    """The fix is the smallest extra of the distribution that brings the engine."""
    code = plugin_code(requires=("no-such-engine>=2",))
    site.install(code=code, metadata=EXTRAS)

    with pytest.raises(
        BackendUnavailableError, match=r"install 'llmcore-mine\[fast\]'"
    ):
        registry.get("mine")


def test_not_an_extra(site: Site, registry: Registry) -> None:
    """A plain dependency that is gone is named itself, whatever extras there are."""
    metadata = 'Provides-Extra: dev\nRequires-Dist: no-such; python_version > "3"\n'
    site.install(code=plugin_code(requires=("no-such",)), metadata=metadata)

    with pytest.raises(BackendUnavailableError, match="pip install 'no-such'"):
        registry.get("mine")


def test_wrong_version(site: Site, registry: Registry) -> None:
    """An engine of the wrong version is refused with both versions."""
    site.describe("engine-of-mine", version="1.4")
    site.install(code=plugin_code(requires=("engine-of-mine>=2",)))

    with pytest.raises(BackendUnavailableError, match=r"engine-of-mine>=2 \(1\.4\)"):
        registry.get("mine")


@pytest.mark.parametrize(
    "requirement",
    ["engine-of-mine>=1", "Engine_of.Mine<3", "no-such-engine; python_version<'3'"],
)
def test_requirement_met(site: Site, registry: Registry, requirement: str) -> None:
    """Requirements are compared as pip does: names, markers and pre-releases."""
    site.describe("engine-of-mine", version="2.0rc1")
    site.install(code=plugin_code(requires=(requirement,)))

    assert registry.get("mine").problem is None


def test_requirement_is_not_imported(site: Site, registry: Registry) -> None:
    """Whether the engine is there is found out without importing it."""
    site.write("engine_of_mine", "raise AssertionError")
    site.describe("engine-of-mine")
    site.install(code=plugin_code(requires=("engine-of-mine",)))

    assert registry.get("mine").problem is None
    assert "engine_of_mine" not in sys.modules


# -- making one -----------------------------------------------------------------------


def test_create(site: Site, registry: Registry) -> None:
    """Each call makes a new instance."""
    site.write("engine", ENGINE)
    site.install()

    one, two = registry.create("mine"), registry.create("llmcore-mine:mine")

    assert isinstance(one, Backend)
    assert one is not two


def test_create_is_when_it_is_imported(site: Site, registry: Registry) -> None:
    """The engine is imported when the first instance is made, not before."""
    site.write("engine", ENGINE)
    site.install()
    registry.get("mine")
    assert "engine" not in sys.modules

    registry.create("mine")

    assert "engine" in sys.modules


def test_create_nested(site: Site, registry: Registry) -> None:
    """A factory can be an attribute of an attribute."""
    site.write("engine", f"{ENGINE}\nclass Namespace:\n    make = Engine\n")
    site.install(code=plugin_code(factory="engine:Namespace.make"))

    assert isinstance(registry.create("mine"), Backend)


FACTORIES = {
    "no module": ("", "no_such_module:Engine", ModuleNotFoundError),
    "import fails": ("raise OSError('driver')", "engine:Engine", OSError),
    "import exits": ("raise SystemExit", "engine:Engine", SystemExit),
    "no attribute": ("", "engine:Engine", AttributeError),
    "raises": ("def make(): raise MemoryError", "engine:make", MemoryError),
    "not a backend": ("def make(): return 3", "engine:make", TypeError),
    "abstract": ("from llmcore.spi import Backend", "engine:Backend", TypeError),
    "empty": ("", ":", ValueError),
}


@pytest.mark.parametrize(
    ("code", "factory", "cause"), FACTORIES.values(), ids=FACTORIES
)
def test_create_fails(
    site: Site,
    registry: Registry,
    code: str,
    factory: str,
    cause: type[BaseException],
) -> None:
    """Whatever a factory does wrong is one error, with the original as its cause."""
    site.write("engine", code)
    site.install(code=plugin_code(factory=factory))

    with pytest.raises(BackendUnavailableError, match="'mine' cannot be") as caught:
        registry.create("mine")

    assert isinstance(caught.value.__cause__, cause)


def test_create_again(site: Site, registry: Registry) -> None:
    """A factory that failed once can be tried again."""
    site.write("engine", "raise OSError('driver')")
    site.install()
    with pytest.raises(BackendUnavailableError):
        registry.create("mine")

    site.write("engine", ENGINE)

    assert isinstance(registry.create("mine"), Backend)


def test_create_interrupted(site: Site, registry: Registry) -> None:
    """Ctrl-C in a factory passes."""
    site.write("engine", "raise KeyboardInterrupt")
    site.install()

    with pytest.raises(KeyboardInterrupt):
        registry.create("mine")
