"""Models come from a hub: found, fetched once, kept where other programs look."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from llmcore import telemetry
from llmcore.errors import (
    DownloadError,
    OperationCancelledError,
    ParameterError,
    SourceNotFoundError,
)
from llmcore.sources import Share, aresolve, resolve

from .hub_server import MAIN, REPOSITORY, Hub, hash_of

A = "hf:owner/models/a.gguf"
OTHER = "c" * 40


def test_fetched(hub: Hub, cache: Path) -> None:
    """A file is fetched, with its size, its commit and its checksum."""
    found = resolve(A, cache_dir=cache)

    assert found.path.read_bytes() == hub.files["a.gguf"]
    [file] = found.files
    assert (file.size, file.path) == (100_000, found.path)
    assert file.sha256 == hash_of(hub.files["a.gguf"])
    assert (found.size, found.missing) == (100_000, 0)
    assert (found.commit, found.checked) == (MAIN, True)


def test_once(hub: Hub, cache: Path) -> None:
    """What is here is not fetched again, and nothing is reported."""
    first, shares = resolve(A, cache_dir=cache), []

    assert resolve(A, cache_dir=cache, progress=shares.append) == first
    assert (len(hub.paths()), shares) == (1, [])


def test_force(hub: Hub, cache: Path) -> None:
    """With ``force`` it is."""
    resolve(A, cache_dir=cache)
    found = resolve(A, cache_dir=cache, force=True)

    assert len(hub.paths()) == 2
    assert found.path.read_bytes() == hub.files["a.gguf"]


def test_shared_with_the_library(hub: Hub, cache: Path) -> None:
    """The hub's own library finds the file in the cache."""
    from huggingface_hub import hf_hub_download

    found = resolve("hf:owner/models/folder/b.gguf", cache_dir=cache)

    theirs = hf_hub_download(
        REPOSITORY, "folder/b.gguf", cache_dir=cache, local_files_only=True
    )
    assert Path(theirs) == found.path


def test_shared_by_the_library(hub: Hub, cache: Path) -> None:
    """What the hub's own library keeps is used, whether online or not."""
    content = hub.files["a.gguf"]
    folder = cache / "models--owner--models"
    for name in ("blobs", "refs", f"snapshots/{MAIN}"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text(MAIN)
    (folder / "blobs" / hash_of(content)).write_bytes(content)
    path = folder / "snapshots" / MAIN / "a.gguf"
    path.symlink_to(f"../../blobs/{hash_of(content)}")

    assert resolve(A, cache_dir=cache).path == path
    assert resolve(A, cache_dir=cache, offline=True).path == path
    assert hub.paths() == []


def test_revisions(hub: Hub, cache: Path) -> None:
    """A branch means its newest commit; the old file stays."""
    old = resolve(A, cache_dir=cache)
    hub.revisions["main"] = OTHER
    hub.files["a.gguf"] = b"new"
    new = resolve(A, cache_dir=cache)

    assert (new.commit, new.path.read_bytes()) == (OTHER, b"new")
    assert old.path.stat().st_size == 100_000
    assert resolve(A, cache_dir=cache, offline=True).path == new.path


def test_commit(hub: Hub, cache: Path) -> None:
    """A commit that is here is not even looked up."""
    first = resolve(f"{A}@{MAIN}", cache_dir=cache)
    hub.requests.clear()

    assert resolve(A, cache_dir=cache, revision=MAIN) == first
    assert hub.requests == []


def test_two_revisions(hub: Hub, cache: Path) -> None:
    """Two different revisions for one model are refused."""
    with pytest.raises(ParameterError, match="leave one of the two out"):
        resolve(f"{A}@main", cache_dir=cache, revision="other")


def test_split(hub: Hub, cache: Path) -> None:
    """All parts of a split model are fetched into one folder, in one progress."""
    names = [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    hub.files |= {name: name.encode() * 10 for name in names}
    shares: list[Share] = []

    found = resolve(
        f"hf:owner/models/{names[0]}", cache_dir=cache, progress=shares.append
    )

    assert found.path == found.path.parent / names[0]
    assert [f.name for f in found.files] == names
    assert all((found.path.parent / n).read_bytes() == hub.files[n] for n in names)
    assert [s.done for s in shares] == sorted(s.done for s in shares)
    assert (shares[-1], shares[-1].done, shares[-1].total) == (1.0, 630, 630)


def test_part(hub: Hub, cache: Path) -> None:
    """A part that is not the first is refused with the name of the first."""
    with pytest.raises(ParameterError, match=r"first one, 'm-00001-of-00002\.gguf'"):
        resolve("hf:owner/models/m-00002-of-00002.gguf", cache_dir=cache)


def test_small_file(hub: Hub, cache: Path) -> None:
    """A file that git keeps itself is fetched, and its hash checked, too."""
    hub.small.add("a.gguf")
    found = resolve(A, cache_dir=cache)

    assert found.path.read_bytes() == hub.files["a.gguf"]
    assert found.files[0].sha256 is None


def test_progress(hub: Hub, cache: Path) -> None:
    """The progress grows from nothing to all, in bytes and as a share."""
    shares: list[Share] = []
    resolve(A, cache_dir=cache, progress=shares.append)

    assert [*shares] == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert (shares[-1].done, shares[-1].total) == (100_000, 100_000)


def test_progress_cancels(hub: Hub, cache: Path) -> None:
    """A progress that returns False cancels; what came is kept and gone on with."""

    def enough(share: Share) -> bool:
        return share.done == 0

    with pytest.raises(OperationCancelledError, match="kept"):
        resolve(A, cache_dir=cache, progress=enough)
    shares: list[Share] = []
    resolve(A, cache_dir=cache, progress=shares.append)

    assert shares[0].done > 0


def test_event_cancels(hub: Hub, cache: Path) -> None:
    """An event that another thread sets cancels."""
    cancel = threading.Event()
    hub.before_bytes = cancel.set

    with pytest.raises(OperationCancelledError):
        resolve(A, cache_dir=cache, cancel=cancel)


def test_event_stays(hub: Hub, cache: Path) -> None:
    """A progress that cancels does not set the caller's event."""
    cancel = threading.Event()
    with pytest.raises(OperationCancelledError):
        resolve(A, cache_dir=cache, cancel=cancel, progress=lambda share: False)

    assert not cancel.is_set()


def test_progress_raises(hub: Hub, cache: Path) -> None:
    """What the progress raises is what the caller gets."""

    def broken(share: Share) -> None:
        raise OSError("my own")

    with pytest.raises(OSError, match="my own"):
        resolve(A, cache_dir=cache, progress=broken)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async(hub: Hub, cache: Path, backend: str) -> None:
    """The twin for async code gives the same."""

    async def main() -> Path:
        return (await aresolve(A, cache_dir=cache)).path

    assert anyio.run(main, backend=backend) == resolve(A, cache_dir=cache).path


def test_async_cancelled(hub: Hub, cache: Path) -> None:
    """Cancelling the task cancels the download."""
    asked, cancelled, ended = (threading.Event() for _ in range(3))

    def hold() -> None:
        asked.set()
        cancelled.wait(20)

    def progress(share: Share) -> None:
        if cancelled.is_set():  # the last call: after it the download stops
            ended.set()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: aresolve(A, cache_dir=cache, progress=progress))
            await anyio.to_thread.run_sync(asked.wait)
            tasks.cancel_scope.cancel()

    hub.before_bytes = hold
    anyio.run(main)
    cancelled.set()

    assert ended.wait(20)
    assert not list(cache.rglob("*.gguf"))


def test_offline(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, what is here is used and nobody is asked."""
    first = resolve(A, cache_dir=cache)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert resolve(A, cache_dir=cache).path == first.path
    assert hub.requests == []


def test_offline_and_absent(hub: Hub, cache: Path) -> None:
    """Offline, what is not here cannot be had; says where it was looked for."""
    with pytest.raises(SourceNotFoundError, match="this is offline") as caught:
        resolve(A, cache_dir=cache, offline=True)

    assert str(cache) in str(caught.value)
    assert hub.requests == []


def test_offline_and_incomplete(hub: Hub, cache: Path) -> None:
    """Offline, half of a split model is none."""
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    hub.files |= dict.fromkeys(names, b"x")
    found = resolve(f"hf:owner/models/{names[0]}", cache_dir=cache)
    (found.path.parent / names[1]).unlink()

    with pytest.raises(SourceNotFoundError):
        resolve(f"hf:owner/models/{names[0]}", cache_dir=cache, offline=True)


def test_force_offline(cache: Path) -> None:
    """To fetch again while offline is a contradiction."""
    with pytest.raises(ParameterError, match="which offline=True forbids"):
        resolve(A, cache_dir=cache, force=True, offline=True)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_hub_is_down(
    hub: Hub, cache: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """If the hub cannot answer, what is here is used, with a warning in the log."""
    first = resolve(A, cache_dir=cache)
    hub.listing_status = status

    with caplog.at_level(logging.WARNING, "llmcore.sources"):
        found = resolve(A, cache_dir=cache)

    assert (found.path, found.checked) == (first.path, False)
    assert f"answered with status {status}" in caplog.text


def test_no_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody listens and nothing is here, the error names the address."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1 cannot"):
        resolve(A, cache_dir=cache)


def test_concurrent(hub: Hub, cache: Path) -> None:
    """Of several that want the same file one fetches it and the others wait."""
    first, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        first.set()
        go_on.wait(20)

    hub.before_bytes = hold
    waits: list[Share] = []

    def waiting(share: Share) -> None:
        waits.append(share)
        go_on.set()

    with ThreadPoolExecutor(4) as pool:
        one = pool.submit(resolve, A, cache_dir=cache)
        first.wait(20)
        others = [
            pool.submit(resolve, A, cache_dir=cache, progress=waiting) for _ in range(3)
        ]
        paths = {task.result(30).path for task in (one, *others)}

    assert len(paths) == len(hub.paths()) == 1
    assert {share.done for share in waits} == {0}


@pytest.mark.parametrize(
    ("token", "stored", "sent"),
    [
        (None, None, None),
        ("mine", None, "Bearer mine"),
        (None, "stored", "Bearer stored"),
        (False, "stored", None),
    ],
)
def test_token(
    hub: Hub,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | bool | None,
    stored: str | None,
    sent: str | None,
) -> None:
    """The hub is shown the token that was given or stored; the bytes' server never."""
    if stored:
        monkeypatch.setenv("HF_TOKEN", stored)
    resolve(A, cache_dir=cache, token=token)

    shown = {path.partition("/cdn/")[1]: who for _, path, _, who in hub.requests}
    assert shown == {"": sent, "/cdn/": None}


def test_nothing_else_is_asked(hub: Hub, cache: Path) -> None:
    """A download is three requests, and none tells the hub about this machine."""
    resolve(A, cache_dir=cache)

    assert [path.partition("?")[0] for _, path, *_ in hub.requests] == [
        f"/api/models/{REPOSITORY}/revision/main",
        f"/{REPOSITORY}/resolve/{MAIN}/a.gguf",
        f"/cdn/{hash_of(hub.files['a.gguf'])}",
    ]


def test_told(hub: Hub, cache: Path) -> None:
    """A download is an event with its bytes; a look into the cache is none."""
    events: list[telemetry.TelemetryEvent] = []
    with telemetry.listen(events.append, names=["download"]):
        resolve(A, cache_dir=cache)
        resolve(A, cache_dir=cache)

    assert [event.phase for event in events] == ["start", "complete"]
    assert events[0].subject.label == A
    assert events[1].attributes["bytes"] == 100_000
