"""The file in which processes remember how backends behaved."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from llmcore.plugins import Trial
from llmcore.plugins.memory import KEPT, KEPT_FAILURE, Memory, users_memory
from llmcore.values import Device

GOOD = Trial(
    devices=(Device(name="CPU", kind="cpu", total=2, free=1),),
    builds=("/somewhere",),
    noise="hello",
    seconds=0.5,
)
BAD = Trial(failure="it crashed", lethal=True, seconds=0.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is no file yet, nor a folder."""
    return tmp_path / "cache" / "trials.json"


@pytest.mark.parametrize("trial", [GOOD, BAD], ids=["good", "bad"])
def test_round_trip(path: Path, trial: Trial) -> None:
    """What is remembered is what was found, marked as remembered."""
    Memory(path).keep("key", trial)

    recalled = Memory(path).recall("key")

    assert recalled is not None
    assert recalled.remembered
    assert (recalled.failure, recalled.lethal) == (trial.failure, trial.lethal)
    assert (recalled.devices, recalled.builds) == (trial.devices, trial.builds)
    assert Memory(path).recall("another key") is None


@pytest.mark.parametrize(
    ("trial", "kept"), [(GOOD, KEPT), (BAD, KEPT_FAILURE)], ids=["good", "bad"]
)
def test_age(path: Path, trial: Trial, kept: float) -> None:
    """Nothing is believed for ever, a failure for an hour only, nor from the future."""
    Memory(path, clock=lambda: 1000.0).keep("key", trial)

    assert Memory(path, clock=lambda: 999.0 + kept).recall("key") is not None
    assert Memory(path, clock=lambda: 1000.0 + kept).recall("key") is None
    assert Memory(path, clock=lambda: 999.0).recall("key") is None


def test_old_ones_go(path: Path) -> None:
    """The file does not grow for ever."""
    Memory(path, clock=lambda: 0.0).keep("old", GOOD)
    Memory(path, clock=lambda: 2 * KEPT).keep("new", GOOD)

    assert list(json.loads(path.read_text())) == ["new"]


ENTRY = {"time": 1.0, "trial": {"devices": [], "builds": []}}
GARBAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "cut": b'{"key": {"time": 1.0, "tri',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "entry": b'{"key": 3}',
    "time": b'{"key": {"time": "noon", "trial": {"devices": [], "builds": []}}}',
    "not a number": b'{"key": {"time": NaN, "trial": {"devices": [], "builds": []}}}',
    "trial": b'{"key": {"time": 1.0, "trial": 3}}',
    "no devices": b'{"key": {"time": 1.0, "trial": {}}}',
    "device": b'{"key": {"time": 1.0, "trial": {"devices": [3], "builds": []}}}',
    "odd device": b'{"key": {"time": 1.0, "trial": '
    b'{"devices": [{"name": 1, "kind": []}], "builds": []}}}',
    "builds": b'{"key": {"time": 1.0, "trial": {"devices": [], "builds": [3]}}}',
    "failure": b'{"key": {"time": 1.0, "trial": '
    b'{"devices": [], "builds": [], "failure": 3}}}',
    "unknown": b'{"key": {"time": 1.0, "trial": '
    b'{"devices": [], "builds": [], "colour": 3}}}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage(path: Path, garbage: bytes) -> None:
    """A file with anything in it is like none, and is written again."""
    path.parent.mkdir()
    path.write_bytes(garbage)
    memory = Memory(path, clock=lambda: 2.0)

    assert memory.recall("key") is None
    memory.keep("key", GOOD)
    assert memory.recall("key") is not None


def test_not_garbage(path: Path) -> None:
    """The damage in the test above is what makes the difference."""
    path.parent.mkdir()
    path.write_text(json.dumps({"key": ENTRY}))

    assert Memory(path, clock=lambda: 2.0).recall("key") is not None


def test_nowhere_to_write(tmp_path: Path) -> None:
    """Where nothing can be written nothing is remembered, and that is all."""
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "trials.json")

    memory.keep("key", GOOD)

    assert memory.recall("key") is None


def test_writers_at_once(path: Path) -> None:
    """Writers at the same time leave a whole file, and nothing else in the folder."""
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            Memory(path).keep(f"key {number}", GOOD)

    threads = [threading.Thread(target=write, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    entries = json.loads(path.read_text())
    assert entries
    assert all(Memory(path).recall(key) for key in entries)
    assert os.listdir(path.parent) == ["trials.json"]


def test_no_memory() -> None:
    """Without a file nothing is remembered."""
    memory = Memory(None)

    memory.keep("key", GOOD)

    assert memory.recall("key") is None


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms, other places")
@pytest.mark.parametrize(
    ("base", "folder"), [("", ".cache"), ("other", ".cache"), ("/{}/base", "base")]
)
def test_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str, folder: str
) -> None:
    """The file lies in the cache folder of the user; a relative one does not count."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", base.format(tmp_path))

    users_memory().keep("key", GOOD)

    assert (tmp_path / folder / "llmcore" / "trials.json").exists()
