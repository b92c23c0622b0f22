"""Downloads that go wrong: go on, or end with an error and nothing wrong in use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmcore.errors import DownloadError, SourceAccessError, SourceNotFoundError
from llmcore.sources import Share, resolve, transfer

from .hub_server import Hub

A = "hf:owner/models/a.gguf"


def starts(hub: Hub) -> list[int]:
    """Where each request for bytes wanted to start."""
    ranges = [wanted for _, path, wanted, _ in hub.requests if "/cdn/" in path]
    return [int((wanted or "")[6:].partition("-")[0]) for wanted in ranges]


def left(cache: Path) -> list[int]:
    """Sizes of the contents in the cache, complete or not."""
    return [path.stat().st_size for path in cache.rglob("blobs/*")]


def test_cut(hub: Hub, cache: Path) -> None:
    """A download goes on where the connection was cut."""
    hub.cuts = [30_000, 0, 10_000]
    found = resolve(A, cache_dir=cache)

    assert found.path.read_bytes() == hub.files["a.gguf"]
    assert starts(hub) == [0, 30_000, 30_000, 40_000]


def test_cut_for_good(hub: Hub, cache: Path) -> None:
    """A download that gets nothing more is given up, and what came is kept."""
    hub.cuts = [30_000, *[0] * 10]
    with pytest.raises(DownloadError, match=r"30000 of 100000 bytes.*kept") as caught:
        resolve(A, cache_dir=cache)

    assert len(starts(hub)) == 1 + transfer.RETRIES + 1
    assert caught.value.__cause__ is not None
    assert left(cache) == [30_000]


def test_next_call(hub: Hub, cache: Path) -> None:
    """The next call goes on with what an earlier one kept."""
    hub.cuts = [30_000, *[0] * 6]
    with pytest.raises(DownloadError):
        resolve(A, cache_dir=cache)
    hub.requests.clear()
    shares: list[Share] = []

    found = resolve(A, cache_dir=cache, progress=shares.append)

    assert found.path.read_bytes() == hub.files["a.gguf"]
    assert (starts(hub), shares[0].done) == ([30_000], 30_000)
    assert left(cache) == [100_000]


def test_no_ranges(hub: Hub, cache: Path) -> None:
    """A server that cannot start in the middle is read from the start again."""
    hub.ranges, hub.cuts = False, [30_000]

    assert resolve(A, cache_dir=cache).path.read_bytes() == hub.files["a.gguf"]


def test_no_ranges_and_cut(hub: Hub, cache: Path) -> None:
    """If it is then cut off again and again, that ends, too."""
    hub.ranges, hub.cuts = False, [30_000, 20_000, 30_000] * 10

    with pytest.raises(DownloadError, match="nothing more came"):
        resolve(A, cache_dir=cache)


def test_overloaded(hub: Hub, cache: Path) -> None:
    """A server that is overloaded is asked again."""
    hub.statuses = [503, 429, 500]

    assert resolve(A, cache_dir=cache).path.read_bytes() == hub.files["a.gguf"]


def test_final_refusal(hub: Hub, cache: Path) -> None:
    """A refusal that will not change is not asked for again."""
    hub.statuses = [403] * 9
    with pytest.raises(SourceAccessError):
        resolve(A, cache_dir=cache)

    assert len(hub.paths()) == 1


def test_gone(hub: Hub, cache: Path) -> None:
    """A file that vanishes between the look-up and the download is not found."""
    hub.statuses = [404]

    with pytest.raises(SourceNotFoundError):
        resolve(A, cache_dir=cache)


@pytest.mark.parametrize("size", [50_000, 150_000])
def test_wrong_size(hub: Hub, cache: Path, size: int) -> None:
    """A file of another size than announced is not used."""
    hub.served["a.gguf"] = bytes(size)
    with pytest.raises(DownloadError, match=rf"wrong size: {size} bytes.*100000"):
        resolve(A, cache_dir=cache)

    assert not list(cache.rglob("*.gguf"))


def test_shrunk(hub: Hub, cache: Path) -> None:
    """A file that ends before what is here of it already is not used."""
    hub.cuts = [30_000, *[0] * 6]
    with pytest.raises(DownloadError):
        resolve(A, cache_dir=cache)
    hub.served["a.gguf"] = bytes(20_000)

    with pytest.raises(DownloadError, match="wrong size: it ends before byte 30001"):
        resolve(A, cache_dir=cache)


def test_wrong_checksum(hub: Hub, cache: Path) -> None:
    """A file with another content than announced is removed."""
    hub.served["a.gguf"] = bytes(100_000)
    with pytest.raises(DownloadError, match=r"wrong checksum.*fetch it again"):
        resolve(A, cache_dir=cache)

    assert left(cache) == []
    assert not list(cache.rglob("*.gguf"))


def test_wrong_checksum_of_a_small_file(hub: Hub, cache: Path) -> None:
    """So is a file that git keeps itself."""
    hub.small.add("a.gguf")
    hub.served["a.gguf"] = bytes(100_000)

    with pytest.raises(DownloadError, match="wrong checksum"):
        resolve(A, cache_dir=cache)


def test_fetched_after_that(hub: Hub, cache: Path) -> None:
    """After a wrong content the right one can be fetched."""
    hub.served["a.gguf"] = bytes(100_000)
    with pytest.raises(DownloadError):
        resolve(A, cache_dir=cache)
    hub.served.clear()

    assert resolve(A, cache_dir=cache).path.read_bytes() == hub.files["a.gguf"]


def test_damaged_in_the_cache(hub: Hub, cache: Path) -> None:
    """A file in the cache that is not complete is fetched again."""
    found = resolve(A, cache_dir=cache)
    os.truncate(found.path, 10)

    assert resolve(A, cache_dir=cache).path.read_bytes() == hub.files["a.gguf"]


def test_too_much_is_here(hub: Hub, cache: Path) -> None:
    """More than the whole file in an earlier try is not gone on with."""
    partial = cache / "models--owner--models/blobs" / hub.hash("a.gguf")
    partial.parent.mkdir(parents=True)
    partial.with_name(partial.name + transfer.PARTIAL).write_bytes(bytes(100_001))

    assert resolve(A, cache_dir=cache).path.read_bytes() == hub.files["a.gguf"]


def test_no_room(hub: Hub, cache: Path) -> None:
    """A file larger than the disk is not begun."""
    hub.announced["a.gguf"] = 2**60
    with pytest.raises(DownloadError, match=r"no space left: 1099511627776 MiB"):
        resolve(A, cache_dir=cache)

    assert hub.paths() == []


def test_no_folder(hub: Hub, tmp_path: Path) -> None:
    """A cache that cannot be written is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot write into .*file") as caught:
        resolve(A, cache_dir=tmp_path / "file")

    assert isinstance(caught.value.__cause__, OSError)


def test_absent_repository(hub: Hub, cache: Path) -> None:
    """A repository that is not there, or not for everybody, is named."""
    with pytest.raises(SourceNotFoundError, match=r"'owner/other'.*set HF_TOKEN"):
        resolve("hf:owner/other/a.gguf", cache_dir=cache)
    with pytest.raises(SourceNotFoundError, match="or the token may not see it"):
        resolve("hf:owner/other/a.gguf", cache_dir=cache, token="mine")


def test_absent_revision(hub: Hub, cache: Path) -> None:
    """A revision that is not there is named."""
    with pytest.raises(SourceNotFoundError, match="has no revision 'old'"):
        resolve(f"{A}@old", cache_dir=cache)


def test_absent_file(hub: Hub, cache: Path) -> None:
    """A file that is not there is answered with what comes near, and what there is."""
    with pytest.raises(SourceNotFoundError) as caught:
        resolve("hf:owner/models/A.gguf", cache_dir=cache)

    assert "did you mean 'a.gguf'" in str(caught.value)
    assert "(models there: a.gguf, folder/b.gguf)" in str(caught.value)


def test_gated(hub: Hub, cache: Path) -> None:
    """A gated repository says where to ask, and what to pass; with a token, where."""
    hub.token, hub.gated = "right", True
    with pytest.raises(SourceAccessError, match=r"ask for access.*set HF_TOKEN"):
        resolve(A, cache_dir=cache)
    with pytest.raises(SourceAccessError, match="is not open to this token") as caught:
        resolve(A, cache_dir=cache, token="secret")

    assert "secret" not in str(caught.value)
    assert resolve(A, cache_dir=cache, token="right").size == 100_000


def test_access_is_no_reason_to_use_the_cache(hub: Hub, cache: Path) -> None:
    """Who may not see the repository any more is told so."""
    resolve(A, cache_dir=cache)
    hub.token, hub.gated = "right", True

    with pytest.raises(SourceAccessError):
        resolve(A, cache_dir=cache)


@pytest.mark.parametrize(
    "change",
    [
        {"sha": "../../.."},
        {"siblings": None},
        {"siblings": [{"rfilename": "a.gguf", "size": 3, "blobId": "../x"}]},
        {"siblings": [{"rfilename": "a.gguf", "size": -1, "blobId": "b" * 40}]},
        {"siblings": [{"rfilename": "a.gguf"}]},
        {"siblings": [3]},
    ],
)
def test_strange_answer(hub: Hub, cache: Path, change: dict[str, object]) -> None:
    """An answer that is not one of a hub is refused; nothing of it names a file."""
    listing = {"sha": "a" * 40, "siblings": []}
    hub.answer = json.dumps(listing | change).encode()

    with pytest.raises(DownloadError, match="is HF_ENDPOINT the address of a hub"):
        resolve(A, cache_dir=cache)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"3", b"\xff"])
def test_no_answer(hub: Hub, cache: Path, answer: bytes) -> None:
    """What is no JSON object is refused, too."""
    hub.answer = answer

    with pytest.raises(DownloadError, match="cannot be understood"):
        resolve(A, cache_dir=cache)
