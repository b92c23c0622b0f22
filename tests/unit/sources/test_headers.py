"""The header of a model is had without the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from llmcore.errors import DownloadError, ModelLoadError, SourceNotFoundError
from llmcore.sources import header, ranges, resolve

from ..fuzz_model_file import Image, array, scalar, tiny_image
from .hub_server import MAIN, Hub

A = "hf:owner/models/a.gguf"


def with_values(**values: bytes) -> Image:
    """The tiny model with more metadata; ``__`` stands for a dot."""
    image = tiny_image()
    more = {name.replace("__", ".").encode(): value for name, value in values.items()}
    return evolve(image, values={**image.values, **more})


def asked(hub: Hub) -> list[str | None]:
    """The parts of files that were asked for."""
    return [wanted for _, path, wanted, _ in hub.requests if "/cdn/" in path]


def test_path(tmp_path: Path) -> None:
    """A file of this machine is read here."""
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(tiny_image()))
    found = header(path)

    assert found.header is not None
    assert found.header.architecture == "llama"
    assert (found.size, found.missing) == (path.stat().st_size, 0)


def test_absent_path(tmp_path: Path) -> None:
    """A file that is not here is answered with what comes near."""
    (tmp_path / "model.gguf").write_text("")

    with pytest.raises(SourceNotFoundError, match=r"did you mean 'model\.gguf'"):
        header(tmp_path / "modle.gguf")


def test_remote(hub: Hub, cache: Path) -> None:
    """On a hub only the beginning is asked for, and the true size is known."""
    image = tiny_image()
    hub.files["a.gguf"] = bytes(evolve(image, data=image.data + bytes(2**21)))
    found = header(A, cache_dir=cache)

    assert found.header is not None
    assert (found.header.architecture, found.commit) == ("llama", MAIN)
    assert len(found.header.tensors) == len(image.tensors)
    assert found.size == found.missing == len(hub.files["a.gguf"])
    assert asked(hub) == [f"bytes=0-{ranges.FIRST - 1}"]
    assert not cache.exists()


def test_same(hub: Hub, cache: Path, tmp_path: Path) -> None:
    """It is the header that the file has when it is here."""
    hub.files["a.gguf"] = bytes(tiny_image())
    remote = header(A, cache_dir=cache)
    local = resolve(A, cache_dir=cache)

    assert remote.header == header(local.path).header


def test_cached(hub: Hub, cache: Path) -> None:
    """What is in the cache is not asked for, and offline it is enough."""
    hub.files["a.gguf"] = bytes(tiny_image())
    resolve(A, cache_dir=cache)
    hub.requests.clear()

    assert header(A, cache_dir=cache).missing == 0
    assert header(A, cache_dir=cache, offline=True).header is not None
    assert asked(hub) == []


def test_long_header(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header longer than what was asked for is asked for again, each byte once."""
    monkeypatch.setattr(ranges, "FIRST", 1024)
    hub.files["a.gguf"] = bytes(with_values(x=array("string", [b"word"] * 500)))
    found = header(A, cache_dir=cache)

    assert found.header is not None
    assert len(found.header.tensors) == 21
    assert asked(hub)[:3] == ["bytes=0-1023", "bytes=1024-2047", "bytes=2048-4095"]


@pytest.mark.parametrize("first", [24, 30, 100, 999])
def test_anywhere(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """It does not matter where the first part ends."""
    monkeypatch.setattr(ranges, "FIRST", first)
    hub.files["a.gguf"] = bytes(tiny_image())

    assert header(A, cache_dir=cache).header is not None


def test_endless_header(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that would not end is given up."""
    monkeypatch.setattr(ranges, "FIRST", 1024)
    monkeypatch.setattr(ranges, "MOST", 8192)
    hub.files["a.gguf"] = bytes(with_values(x=array("u8", [0] * 20_000)))
    with pytest.raises(ModelLoadError, match="is longer than 8192 bytes"):
        header(A, cache_dir=cache)

    assert len(asked(hub)) == 4


def test_no_ranges(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends the whole file is left when enough came."""
    monkeypatch.setattr(ranges, "FIRST", 1024)
    hub.ranges = False
    image = with_values(x=array("string", [b"word"] * 500))
    hub.files["a.gguf"] = bytes(evolve(image, data=image.data + bytes(2**24)))

    assert header(A, cache_dir=cache).size > 2**24


def test_cut(hub: Hub, cache: Path) -> None:
    """A cut connection is gone on with, and given up at last."""
    hub.files["a.gguf"] = bytes(tiny_image())
    hub.cuts = [100, 0, 50]
    assert header(A, cache_dir=cache).header is not None

    hub.cuts = [0] * 20
    with pytest.raises(DownloadError, match="nothing more came"):
        header(A, cache_dir=cache)


def test_split(hub: Hub, cache: Path) -> None:
    """The header of a split model has the tensors of all its files."""
    whole = tiny_image()
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    first = with_values(split__count=scalar("u16", 2))
    rest = evolve(whole, values={}, tensors=whole.tensors[:1])
    hub.files = dict(zip(names, map(bytes, (first, rest)), strict=True))
    renamed = bytes(rest).replace(b"token_embd", b"token_embX")
    hub.files[names[1]] = renamed

    found = header(f"hf:owner/models/{names[0]}", cache_dir=cache)
    local = resolve(f"hf:owner/models/{names[0]}", cache_dir=cache)

    assert found.header is not None
    assert len(found.header.tensors) == len(whole.tensors) + 1
    assert found.size == sum(map(len, hub.files.values()))
    assert header(local.path).header == found.header


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(tiny_image())[:-1], "truncated"),
        (bytes(tiny_image(version=9)), "GGUF version 9"),
    ],
)
def test_damaged(hub: Hub, cache: Path, content: bytes, words: str) -> None:
    """A damaged model is refused as a file of this machine is."""
    hub.files["a.gguf"] = content

    with pytest.raises(ModelLoadError, match=words) as caught:
        header(A, cache_dir=cache)
    assert caught.value.path == A


def test_other_format(hub: Hub, cache: Path) -> None:
    """A file of another format has a size and no header, here as on the hub."""
    hub.files["a.gguf"] = b"lmgg" + bytes(96)
    remote = header(A, cache_dir=cache)
    local = header(resolve(A, cache_dir=cache).path)

    assert (remote.header, remote.size) == (local.header, local.size) == (None, 100)
