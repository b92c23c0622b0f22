from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "plugins/llmcore-example"
PROJECTS = [ROOT, ROOT / "conformance_tests", EXAMPLE]


def build(project: Path, folder: Path) -> ZipFile:
    command = f"-m build --wheel --no-isolation --outdir {folder} {project}"
    subprocess.run([sys.executable, *command.split()], check=True)
    (wheel,) = folder.glob("*.whl")
    return ZipFile(wheel)


@pytest.mark.parametrize(
    "project", PROJECTS, ids=["llmcore", "llmcore_conformance", "llmcore_example"]
)
def test_modules(project: Path, tmp_path: Path) -> None:
    """A wheel holds all of its package and, but for its metadata, nothing else."""
    package = project / "src"
    sources = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with build(project, tmp_path) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}

    assert sources == names


def test_metadata(tmp_path: Path) -> None:
    """The wheel names its licence, its command, and its backends."""
    with build(ROOT, tmp_path) as wheel:
        text = {
            name.split("/", 1)[1]: wheel.read(name).decode()
            for name in wheel.namelist()
            if ".dist-info/" in name
        }

    assert "License-Expression: MIT" in text["METADATA"]
    assert text["licenses/LICENSE"].startswith("MIT License")
    assert "llmcore = llmcore.cli:main" in text["entry_points.txt"]
    assert "[llmcore.backends]" in text["entry_points.txt"]


def test_typed(tmp_path: Path) -> None:
    """Type checkers of users see the types of the wheel."""
    with build(ROOT, tmp_path) as wheel:
        assert "llmcore/py.typed" in wheel.namelist()
