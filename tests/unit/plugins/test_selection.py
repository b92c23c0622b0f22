"""Which backend ``"auto"`` means, and why."""

from __future__ import annotations

from typing import Any

import pytest

from llmcore.errors import AmbiguousBackendError, BackendUnavailableError
from llmcore.plugins import BackendRequest, Registry

from .kit import HEAD, Site, plugin_code

GGUF = BackendRequest(format="gguf")


def install(
    site: Site, *names: str, formats: tuple[str, ...] = ("gguf",), **info: Any
) -> None:
    """Install a plugin with one backend for each name."""
    for name in names:
        code = plugin_code(name, formats=formats, **info)
        site.install(f"llmcore-{name}", code, plugin=name)


def install_policy(site: Site, body: str, name: str = "policy") -> None:
    """Install an application's policy."""
    code = (
        f"{HEAD}\n@hookimpl\ndef llmcore_select_backend(request, candidates):\n{body}"
    )
    site.install(f"llmcore-{name}", code, plugin=name)


def reasons(registry: Registry, request: BackendRequest = GGUF) -> dict[str, str]:
    """Why each backend was chosen or not, the chosen one marked."""
    return {
        ("* " if verdict.chosen else "") + verdict.name: verdict.reason
        for verdict in registry.explain(request)
        if not verdict.reason.startswith("switched off")
    }


def test_only_one(site: Site, registry: Registry) -> None:
    """The only backend that reads the format is taken."""
    install(site, "one")
    install(site, "two", formats=("other",))

    assert registry.select(GGUF).name == "one"
    assert reasons(registry) == {
        "* one": "the only one that can be used",
        "two": "reads other, not gguf",
    }


def test_no_file_yet(site: Site, registry: Registry) -> None:
    """Before a file is known every real backend is a candidate."""
    install(site, "one", formats=())

    assert registry.select(BackendRequest()).name == "one"
    assert reasons(registry) == {"one": "reads no files, not gguf"}


def test_null(site: Site, registry: Registry) -> None:
    """The null backend is never taken, not even if it is alone."""
    site.install("llmcore-null", plugin_code("null"), plugin="null")

    with pytest.raises(BackendUnavailableError, match="only used if asked for by name"):
        registry.select(BackendRequest())


def test_preferred(site: Site, registry: Registry) -> None:
    """Of several, the built-in adapter to llama.cpp is taken."""
    install(site, "a", "z")
    built_in = plugin_code("llama_cpp", formats=("gguf",))
    site.install("llmcore-runtime", built_in, plugin="llama_cpp_of_test")

    assert registry.select(GGUF).qualified == "llmcore-runtime:llama_cpp"
    assert reasons(registry) == {
        "a": "llama_cpp is preferred",
        "* llama_cpp": "preferred by core",
        "z": "llama_cpp is preferred",
    }


def test_tie(site: Site, registry: Registry) -> None:
    """Of several that nothing prefers none is taken."""
    install(site, "one", "two")

    with pytest.raises(AmbiguousBackendError, match="can be used: one, two: ask for"):
        registry.select(GGUF)

    assert reasons(registry) == {
        "one": "one of several that can be used",
        "two": "one of several that can be used",
    }


def test_preferred_by_origin(site: Site, registry: Registry) -> None:
    """A stranger that takes the name of the built-in adapter is not preferred."""
    install(site, "llama_cpp", "other")

    with pytest.raises(AmbiguousBackendError):
        registry.select(GGUF)


def test_unusable(site: Site, registry: Registry) -> None:
    """A backend whose engine is missing is passed over."""
    install(site, "one")
    install(site, "two", requires=("no-such-engine",))

    assert registry.select(GGUF).name == "one"
    assert "needs no-such-engine (not installed)" in reasons(registry)["two"]


def test_conflict(site: Site, registry: Registry) -> None:
    """A name that two distributions claim is not taken by accident."""
    code = plugin_code("llama_cpp", formats=("gguf",))
    site.install("llmcore-a", code)
    site.install("llmcore-b", code)

    with pytest.raises(BackendUnavailableError, match="several distributions claim"):
        registry.select(GGUF)


def test_nothing_installed(site: Site, registry: Registry) -> None:
    """Without any backend the error says to install one."""
    with pytest.raises(BackendUnavailableError, match="install a plugin"):
        registry.select(GGUF)


def test_explain_failed(site: Site, registry: Registry) -> None:
    """Plugins that failed are explained, too."""
    site.install(code="raise OSError('disk')")

    assert "OSError: disk" in reasons(registry)["mine"]


def test_explain_disabled(
    site: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plugins that are switched off are explained, too."""
    site.install()
    monkeypatch.setenv("LLMCORE_PLUGINS", "")

    found = {verdict.name: verdict.reason for verdict in registry.explain(GGUF)}

    assert found["mine"] == "switched off by LLMCORE_PLUGINS"


# -- the application's policy ---------------------------------------------------------


@pytest.mark.parametrize("answer", ["two", "llmcore-two:two"])
def test_policy(site: Site, registry: Registry, answer: str) -> None:
    """The application's policy comes before core's."""
    install(site, "one", "two")
    install_policy(site, f"    return {answer!r}")

    assert registry.select(GGUF).name == "two"
    assert reasons(registry)["* two"].startswith("chosen by the application")


def test_policy_sees(site: Site, registry: Registry) -> None:
    """A policy is given the request and only the backends that can be used."""
    install(site, "one", "two")
    install(site, "three", requires=("no-such-engine",))
    install_policy(
        site,
        "    assert request.format == 'gguf'\n"
        "    assert [c.name for c in candidates] == ['one', 'two']\n"
        "    return candidates[1].qualified",
    )

    assert registry.select(GGUF).name == "two"
    assert registry.problems == []


def test_policy_abstains(site: Site, registry: Registry) -> None:
    """A policy that returns None leaves the choice to the next and then to core."""
    install(site, "one")
    install_policy(site, "    return None")

    assert registry.select(GGUF).name == "one"
    assert registry.problems == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise OSError('disk')", "OSError: disk"),
        ("    raise SystemExit", "SystemExit"),
        ("    return 'three'", "must return one of one, got 'three'"),
        ("    return []", "must return one of one, got []"),
    ],
)
def test_policy_fails(site: Site, registry: Registry, body: str, words: str) -> None:
    """A policy that fails is a problem, and the next policy decides."""
    install(site, "one")
    install_policy(site, body, "z_broken")  # pluggy asks the last one first
    install_policy(site, "    return 'one'", "a_working")

    assert registry.select(GGUF).name == "one"
    assert reasons(registry)["* one"].startswith("chosen by the application")
    [problem] = registry.problems
    assert (problem.plugin, problem.stage) == ("z_broken", "select")
    assert words in problem.message


def test_policy_order(site: Site, registry: Registry) -> None:
    """Policies are asked in pluggy's order, so that ``tryfirst`` means something."""
    install(site, "one", "two")
    install_policy(site, "    return 'one'", "z")
    install_policy(site, "", "a")
    site.write(
        "llmcore_a_a",
        f"{HEAD}\n@hookimpl(tryfirst=True)\ndef llmcore_select_backend():\n"
        "    return 'two'\n",
    )

    assert registry.select(GGUF).name == "two"


def test_policy_interrupted(site: Site, registry: Registry) -> None:
    """Ctrl-C in a policy passes."""
    install(site, "one")
    install_policy(site, "    raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        registry.select(GGUF)
