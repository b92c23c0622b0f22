"""Two builds of ggml never meet in one process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmcore.plugins.builds import find_conflict, ggml_builds

from ...unit.plugins.kit import Site, engine_code, plugin_code

CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(
    CC is None or sys.platform != "linux", reason="needs Linux and a C compiler"
)

LOAD = "import ctypes; ctypes.CDLL({!r})"
ASK = """
import llmcore
from llmcore.errors import BackendUnavailableError
from llmcore.plugins import BackendRequest, registry
try:
    print(registry().select(BackendRequest(backend="mine", isolated={isolated})).name)
except BackendUnavailableError as error:
    print(error)
"""


def build(folder: Path, name: str = "libggml.so") -> str:
    """A library of that name, which does nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "empty.c"
    source.write_text("int ggml_test(void) { return 1; }\n")
    path = folder / name
    assert CC is not None
    subprocess.run([CC, "-shared", "-fPIC", "-o", path, source], check=True)
    source.unlink()
    return str(path)


def builds_after(site: Site, *paths: str) -> list[str]:
    """What a process finds in itself that loaded these libraries."""
    loads = "".join(f"\nctypes.CDLL({path!r})" for path in paths)
    return site.run(
        f"import ctypes{loads}\nfrom llmcore.plugins.builds import ggml_builds\n"
        "print(*sorted(ggml_builds()), sep='\\n')"
    ).splitlines()


@pytest.mark.parametrize(
    "name", ["libggml.so", "libggml-base.so.0.25", "libllama.so", "_llama.abi3.so"]
)
def test_found(site: Site, tmp_path: Path, name: str) -> None:
    """The folder of a loaded ggml or llama library is a build, by whatever loaded."""
    folder = tmp_path / "with a space"

    assert builds_after(site, build(folder, name)) == [str(folder)]


@pytest.mark.parametrize("name", ["libgomp.so", "libmylama.so", "ggml.so.txt"])
def test_not_found(site: Site, tmp_path: Path, name: str) -> None:
    """Other libraries are no build of ggml."""
    assert builds_after(site, build(tmp_path, name)) == []


def test_nothing_loaded(tmp_path: Path) -> None:
    """What loads no ggml has no conflict, whatever is here."""
    assert find_conflict([]) == ""
    assert find_conflict([*ggml_builds(), str(tmp_path)]) == ""


@pytest.fixture
def theirs(site: Site) -> Path:
    """The folder of the library of a backend that is installed with it."""
    library = build(site.root / "engine_of_mine" / "lib")
    site.write("engine", engine_code(LOAD.format(library)))
    site.install(code=plugin_code(requires=("engine-of-mine",)))
    site.describe("engine-of-mine")
    record = site.root / "engine_of_mine-1.0.dist-info" / "RECORD"
    record.write_text("engine_of_mine/lib/libggml.so,,\n")
    return Path(library).parent


def ask(
    site: Site, tmp_path: Path, first: str = "pass", *, isolated: bool = False
) -> str:
    """What a process says about the backend that has loaded something before."""
    return site.run(
        f"{first}\n{ASK.format(isolated=isolated)}",
        LLMCORE_TRIAL_SECONDS="20",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )


def test_alone(site: Site, theirs: Path, tmp_path: Path) -> None:
    """A backend with a ggml of its own is welcome where there is none, or its own."""
    assert ask(site, tmp_path) == "mine"
    assert ask(site, tmp_path, LOAD.format(str(theirs / "libggml.so"))) == "mine"


def test_beside_another(site: Site, theirs: Path, tmp_path: Path) -> None:
    """Beside that of another distribution it is refused; both are named."""
    other = build(site.root / "other_engine")
    site.describe("other-engine")
    record = site.root / "other_engine-1.0.dist-info" / "RECORD"
    record.write_text("other_engine/libggml.so,,\n")

    answer = ask(site, tmp_path, LOAD.format(other))

    assert "its ggml, of engine-of-mine, cannot be loaded beside" in answer
    assert "that of other-engine, which is in this process already" in answer
    assert answer.endswith("use isolation='process'")


def test_beside_a_stray(site: Site, theirs: Path, tmp_path: Path) -> None:
    """A library that no distribution installed is named by its folder."""
    stray = build(tmp_path / "stray")

    assert str(tmp_path / "stray") in ask(site, tmp_path, LOAD.format(stray))


def test_isolated(site: Site, theirs: Path, tmp_path: Path) -> None:
    """What runs in a process of its own is beside nothing."""
    stray = build(tmp_path / "stray")

    assert ask(site, tmp_path, LOAD.format(stray), isolated=True) == "mine"
