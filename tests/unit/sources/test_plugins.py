"""A plugin adds a scheme, and cannot break anything with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcore.errors import OperationCancelledError, ParameterError, SourceError
from llmcore.plugins import Registry
from llmcore.sources import Source, header, resolve

from ..fuzz_model_file import tiny_image
from ..plugins.kit import Site, plugin_code, problem_of

HEAD = """
from llmcore.hookspecs import hookimpl
from llmcore.plugins import SourceInfo

@hookimpl
def llmcore_model_sources():
"""

SHELF = """
from pathlib import Path
from llmcore.sources import ModelFile, ModelSource, Resolved

class Shelf(ModelSource):
    def resolve(self, source, request):
        {body}
        path = Path(source.name)
        request.report(1, 2)
        file = ModelFile(name=path.name, size=path.stat().st_size, path=path)
        return Resolved(source=source, path=path, files=(file,))
"""


def install(site: Site, name: str = "shelf", body: str = "", **info: str) -> None:
    """Install a plugin with one scheme."""
    fields = {"scheme": name, "factory": "shelf:Shelf"} | info
    arguments = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    code = HEAD + (body or f"    return SourceInfo({arguments})")
    site.install(f"llmcore-{name}", code, plugin=name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model on this machine."""
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(tiny_image()))
    return path


def test_resolved(site: Site, plugins: Registry, path: Path) -> None:
    """A model of the scheme is fetched by the plugin, which reports how far it is."""
    install(site)
    site.write("shelf", SHELF.format(body=""))
    shares: list[float] = []

    found = resolve(f"shelf:{path}", progress=shares.append)

    assert (found.path, found.source.scheme) == (path, "shelf")
    assert shares == [0.5]


def test_header(site: Site, plugins: Registry, path: Path) -> None:
    """Its header is read from what was fetched, if the plugin has no other way."""
    install(site)
    site.write("shelf", SHELF.format(body=""))

    found = header(f"shelf:{path}")
    assert found.header is not None
    assert found.header.architecture == "llama"


def test_known(site: Site, plugins: Registry) -> None:
    """The scheme is one of those that a misspelt one is compared with."""
    install(site)

    assert Source.parse("shelf:any thing@all").name == "any thing@all"
    with pytest.raises(ParameterError, match=r"did you mean 'shelf'.*hf, path, shelf"):
        Source.parse("shef:a")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ZeroDivisionError('mine')", "ZeroDivisionError: mine"),
        ("return 3", "not a Resolved: 3"),
        ("return", "not a Resolved: None"),
    ],
)
def test_fails(
    site: Site, plugins: Registry, path: Path, body: str, words: str
) -> None:
    """What fails in a plugin names it, and keeps the cause."""
    install(site)
    site.write("shelf", SHELF.format(body=body))

    with pytest.raises(SourceError, match=rf"llmcore-shelf:shelf failed.*{words}"):
        resolve(f"shelf:{path}")


@pytest.mark.parametrize(
    "code", ["", "raise OSError('broken')", "Shelf = dict", "Shelf = 3"]
)
def test_factory_fails(site: Site, plugins: Registry, code: str) -> None:
    """So does what cannot even be made."""
    install(site)
    site.write("shelf", code)

    with pytest.raises(SourceError, match="the plugin llmcore-shelf:shelf failed"):
        resolve("shelf:a")


def test_cancelled(site: Site, plugins: Registry, path: Path) -> None:
    """A progress that returns False cancels a plugin's download, too."""
    install(site)
    site.write("shelf", SHELF.format(body=""))

    with pytest.raises(OperationCancelledError):
        resolve(f"shelf:{path}", progress=lambda share: False)


def test_progress_raises(site: Site, plugins: Registry, path: Path) -> None:
    """What the progress raises passes through a plugin as it is."""
    install(site)
    site.write("shelf", SHELF.format(body=""))

    def broken(share: float) -> None:
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        resolve(f"shelf:{path}", progress=broken)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise OSError('disk')", "OSError: disk"),
        ("    raise SystemExit(3)", "SystemExit"),
        ("    return 3", "must return a SourceInfo"),
        ("    return SourceInfo(scheme='C', factory='a:b')", "ValueError"),
        ("    return SourceInfo(scheme='ok', factory='ab')", "ValueError"),
    ],
)
def test_bad_hook(site: Site, registry: Registry, body: str, words: str) -> None:
    """A hook that fails is a problem, and takes nothing else with it."""
    install(site, body=body)
    site.install()

    assert registry.sources == {}
    assert list(registry.backends) == ["mine"]
    problem = problem_of(registry)
    assert (problem.plugin, problem.stage) == ("shelf", "source")
    assert words in problem.message


def test_conflict(site: Site, registry: Registry) -> None:
    """A scheme that two plugins claim is nobody's."""
    install(site)
    install(site, "other", scheme="shelf")

    assert registry.sources == {}
    assert [p.stage for p in registry.problems] == ["conflict", "conflict"]


@pytest.mark.parametrize("scheme", ["hf", "path", "file"])
def test_taken(site: Site, registry: Registry, scheme: str) -> None:
    """A scheme of core's own stays core's."""
    install(site, scheme=scheme)

    assert registry.sources == {}
    assert "is core's" in problem_of(registry).message


def test_several(site: Site, registry: Registry) -> None:
    """A plugin may add several schemes, beside its backends."""
    body = "    return [SourceInfo(scheme=s, factory='a:b') for s in ('one', 'two')]"
    code = plugin_code() + HEAD + body
    site.install(code=code)

    assert sorted(registry.sources) == ["one", "two"]
    assert list(registry.backends) == ["mine"]
    assert registry.problems == []
