"""Which plugins are looked at, decided before any is imported."""

from __future__ import annotations

import sys

import pytest

from llmcore.errors import BackendUnavailableError
from llmcore.plugins import Registry

from .kit import Site, plugin_code, problem_of


@pytest.fixture
def modules(site: Site) -> dict[str, str]:
    """The modules of two plugins, by name."""
    return {
        name: site.install(f"llmcore-{name}", plugin=name) for name in ("mine", "other")
    }


@pytest.mark.parametrize(
    ("variable", "value", "left"),
    [
        ("LLMCORE_PLUGINS", "other", ["other"]),
        ("LLMCORE_PLUGINS", " llmcore-other:other , ", ["other"]),
        ("LLMCORE_PLUGINS", "other,mine", ["mine", "other"]),
        ("LLMCORE_PLUGINS", "", []),
        ("LLMCORE_DISABLED_PLUGINS", "mine", ["other"]),
        ("LLMCORE_DISABLED_PLUGINS", "llmcore-mine:mine", ["other"]),
        ("LLMCORE_DISABLED_PLUGINS", "mine, other", []),
    ],
)
def test_lists(
    modules: dict[str, str],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    left: list[str],
) -> None:
    """A plugin that is not allowed, or denied, is never imported."""
    monkeypatch.setenv(variable, value)

    assert [name for name in registry.backends if name in modules] == left
    assert [name for name in modules if modules[name] in sys.modules] == left


def test_both_lists(
    modules: dict[str, str], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that is both allowed and denied is denied."""
    monkeypatch.setenv("LLMCORE_PLUGINS", "mine,other")
    monkeypatch.setenv("LLMCORE_DISABLED_PLUGINS", "mine")

    assert list(registry.backends) == ["other"]


@pytest.mark.parametrize("variable", ["LLMCORE_PLUGINS", "LLMCORE_DISABLED_PLUGINS"])
def test_asking_for_a_disabled_one(
    modules: dict[str, str],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Asking for a plugin that is switched off says by which variable."""
    value = "other" if variable == "LLMCORE_PLUGINS" else "mine"
    monkeypatch.setenv(variable, value)

    with pytest.raises(BackendUnavailableError, match=f"switched off.*{variable}"):
        registry.get("mine")


def test_order(site: Site, registry: Registry) -> None:
    """Plugins load by name and then by distribution, not by place on the disk."""
    order = [("llmcore-z", "a"), ("llmcore-b", "same"), ("llmcore-a", "same")]
    for distribution, plugin in order:
        site.install(distribution, "raise OSError", plugin=plugin)

    found = [(problem.distribution, problem.plugin) for problem in registry.problems]

    assert found == [("llmcore-z", "a"), ("llmcore-a", "same"), ("llmcore-b", "same")]


@pytest.mark.parametrize("text", ["[llmcore.backends]\nnonsense\n", "nonsense = x\n["])
def test_damaged_entry_points(site: Site, registry: Registry, text: str) -> None:
    """One unreadable list of entry points does not hide those of others."""
    site.install()
    site.describe("llmcore-damaged", entry_points=f"[llmcore.backends]\n{text}")

    assert registry.get("mine").problem is None
    problem = problem_of(registry)
    assert (problem.distribution, problem.stage) == ("llmcore-damaged", "import")
    assert "cannot read its entry points" in problem.message


def test_damaged_and_shadowed(site: Site, registry: Registry) -> None:
    """With a damaged neighbour, too, a distribution counts once, the first found."""
    site.describe("llmcore-damaged", entry_points="[llmcore.backends]\nnonsense\n")
    site.install(code=plugin_code("mine"))
    shadowed = site.root / "shadowed"
    shadowed.mkdir()
    later = Site(shadowed)
    later.install(code="raise OSError", module="never_imported")
    sys.path.append(str(shadowed))
    try:
        assert list(registry.backends) == ["mine"]
    finally:
        sys.path.remove(str(shadowed))
    assert [problem.distribution for problem in registry.problems] == [
        "llmcore-damaged"
    ]


def test_nameless(site: Site, registry: Registry) -> None:
    """A distribution whose metadata is gone is called unknown and works."""
    site.install()
    (site.root / "llmcore_mine-1.0.dist-info" / "METADATA").unlink()

    assert registry.get("unknown:mine").distribution == "unknown"


def test_normalised_names(site: Site, registry: Registry) -> None:
    """Distributions are called by their normalised names."""
    site.install("LLMcore_Mine")

    assert registry.get("mine").distribution == "llmcore-mine"
