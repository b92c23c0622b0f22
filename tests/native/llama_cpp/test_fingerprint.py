"""What tells one set of weights from another."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.fingerprint import END, SAMPLE, SAMPLES, fingerprint
from llmcore_conformance.models import tiny_llama

LARGE = 2 * END + 4 * SAMPLES * SAMPLE


def changed(path: Path, place: int) -> str:
    """The fingerprint once a byte has another value."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    return fingerprint(path)


@pytest.mark.parametrize("place", [0, END - 1, END + 5, LARGE - END, LARGE - 1])
def test_places(tmp_path: Path, place: int) -> None:
    """A change in the header, among the weights or at their end is seen."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(bytes(LARGE))

    assert fingerprint(path) != changed(path, place)


def test_stretch(tmp_path: Path) -> None:
    """A change of any stretch as long as the way between two samples is seen."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(bytes(LARGE))
    before = fingerprint(path)
    stride = (LARGE - 2 * END) // SAMPLES
    for start in range(END, LARGE - END - stride, 9 * stride + 77):
        data = bytearray(LARGE)
        data[start : start + stride] = b"x" * stride
        path.write_bytes(data)
        assert fingerprint(path) != before


def test_small(tmp_path: Path) -> None:
    """All of a small file counts."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(bytes(1000))
    before = fingerprint(path)

    assert len({before, *(changed(path, n) for n in range(0, 1000, 50))}) == 21


def test_length(tmp_path: Path) -> None:
    """Another length is another model."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"")
    before = fingerprint(path)
    path.write_bytes(b"\0")

    assert fingerprint(path) != before


def test_parts(tmp_path: Path) -> None:
    """All parts of a model in several files count, wherever they lie."""
    names = [f"weights-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(name.encode())
    before = fingerprint(tmp_path / "here" / names[0])
    assert before == fingerprint(tmp_path / "there" / names[0])

    for name in names[1:]:
        (tmp_path / "there" / name).write_bytes(b"other")
        assert fingerprint(tmp_path / "there" / names[0]) != before


def test_alone_with_a_name_of_parts(tmp_path: Path) -> None:
    """A file that is only called a part is a whole model."""
    path = tmp_path / "weights-00001-of-00003.gguf"
    path.write_bytes(b"all")

    assert fingerprint(path)


def test_models(
    llama: LlamaCppModel, load: Callable[[Path], LlamaCppModel], tmp_path: Path
) -> None:
    """A loaded model has it as hex digits: equal for equal weights, not for others."""
    same, other = (
        load(tiny_llama(tmp_path / f"{seed}.gguf", seed=seed)) for seed in (0, 1)
    )

    assert re.fullmatch("[0-9a-f]{32}", llama.info.fingerprint)
    assert same.info.fingerprint == llama.info.fingerprint
    assert other.info.fingerprint != llama.info.fingerprint


def test_build(llama: LlamaCppModel) -> None:
    """The build names the binding, the engine and its computing library."""
    binding = re.escape(version("llama-cpp-python"))
    pattern = rf"llama-cpp-python {binding} \(llama\.cpp \S+, ggml \S+ \S+\)"

    assert re.fullmatch(pattern, llama.info.build)
