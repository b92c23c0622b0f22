"""Without the hub's library everything else works, and the error says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmcore.errors import SourceError
from llmcore.sources import resolve


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(SourceError, match=r"pip install 'llmcore-runtime\[hub\]'"):
        resolve("hf:owner/models/a.gguf")


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is too old is named."""
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library, "__version__", "0.36.0")

    with pytest.raises(SourceError, match=r"huggingface_hub 0\.36\.0 is too old"):
        resolve("hf:owner/models/a.gguf")


def test_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path needs no library, and may be a folder or a split model."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for name in names:
        (tmp_path / name).write_text(name)

    split = resolve(tmp_path / names[0])

    assert [file.name for file in split.files] == names
    assert split.path == tmp_path / names[0]
    assert resolve(f"path:{tmp_path}").size == split.size == 42


def test_bad_path() -> None:
    """A path that no file can have is refused with the reason."""
    for path, words in (("a\0b", "not a valid path"), ("a" * 5000, "too long")):
        with pytest.raises(SourceError, match=words):
            resolve(path)


def test_light() -> None:
    """Importing the sources imports neither the library nor any plugin."""
    program = "import llmcore.sources, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    heavy = {"huggingface_hub", "httpx", "httpx2", "pluggy", "numpy", "anyio"}
    assert heavy.isdisjoint(done.stdout.split())
