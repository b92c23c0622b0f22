"""Tests of writing state files: whole ones or none, and nothing else changes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from llmcore.errors import StateError
from llmcore.state_file import SavedState, read, write

from .fuzz_state_file import tiny_state

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "saved.state"


@pytest.fixture(name="umask")
def _umask() -> Iterator[int]:
    mask = 0o027
    before = os.umask(mask)
    yield mask
    os.umask(before)


def state(payload: bytes) -> SavedState:
    return evolve(tiny_state(), payload=payload)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failed_write(path: Path, preparation: str) -> str:
    """What a child process reports whose write of 1 MiB into ``path`` fails."""
    script = f"""
import os, signal, sys
from llmcore.state_file import read, write
from attrs import evolve
big = evolve(read(sys.argv[1]), payload=bytes(1 << 20))
{preparation}
try:
    write(sys.argv[1], big)
except BaseException as error:
    print(type(error).__name__, getattr(error, "errno", None))
"""
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ("", 0) == (child.stderr, child.returncode)
    return child.stdout.strip()


SMALL_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""
INTERRUPT_AT_LIMIT = """
def interrupt(number, frame):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the rest is tried as it closes
    raise KeyboardInterrupt
signal.signal(signal.SIGXFSZ, interrupt)
"""
INTERRUPT_BEFORE = """
def interrupt(event, args):
    if event == {event!r} and {condition}:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
"""


@posix
class TestFailure:
    def test_no_space(self, path: Path) -> None:
        """A write that the system stops halfway leaves the old file alone."""
        write(path, tiny_state())

        told = failed_write(path, SMALL_FILES)

        assert f"OSError {errno.EFBIG}" == told
        assert tiny_state() == read(path)
        assert [path] == list(path.parent.iterdir())

    @pytest.mark.parametrize(
        "preparation",
        [
            SMALL_FILES + INTERRUPT_AT_LIMIT,
            INTERRUPT_BEFORE.format(event="open", condition="args[1] == 'x'"),
            INTERRUPT_BEFORE.format(event="os.rename", condition="True"),
        ],
        ids=["in the middle", "as it opens", "at the end"],
    )
    def test_interrupt(self, path: Path, preparation: str) -> None:
        """Control-C during a write leaves the old file alone, and nothing else."""
        write(path, tiny_state())

        told = failed_write(path, preparation)

        assert "KeyboardInterrupt None" == told
        assert tiny_state() == read(path)
        assert [path] == list(path.parent.iterdir())

    def test_killed(self, path: Path) -> None:
        """A process that is killed just before the end leaves the old file alone."""
        write(path, tiny_state())
        kill = "os.kill(os.getpid(), signal.SIGKILL)"
        hook = f"sys.addaudithook(lambda e, args: e == 'os.rename' and {kill})"

        with pytest.raises(AssertionError, match=str(-signal.SIGKILL)):
            failed_write(path, hook)

        assert tiny_state() == read(path)

    @pytest.mark.parametrize("target", ["folder", "file"])
    def test_permission(self, path: Path, target: str) -> None:
        """A read-only folder or file is left as it is."""
        write(path, tiny_state())
        protected, usual = (path.parent, 0o755) if target == "folder" else (path, 0o644)
        protected.chmod(usual & 0o555)
        if os.access(protected, os.W_OK):
            pytest.skip("this user may write everything")

        with pytest.raises(PermissionError):
            write(path, state(b"new"))

        protected.chmod(usual)
        assert tiny_state() == read(path)
        assert [path] == list(path.parent.iterdir())


class TestPlaces:
    def test_no_folder(self, tmp_path: Path) -> None:
        """A folder that does not exist is a plain FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            write(tmp_path / "missing" / "saved.state", tiny_state())

        assert [] == list(tmp_path.iterdir())

    def test_no_file(self, path: Path) -> None:
        """A file that does not exist is a plain FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            read(path)

    def test_folder(self, tmp_path: Path) -> None:
        """A folder is a plain IsADirectoryError, both ways."""
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(IsADirectoryError):
            write(tmp_path, tiny_state())

        assert [] == list(tmp_path.iterdir())

    @posix
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_special(self, tmp_path: Path, kind: str) -> None:
        """Pipes and devices are refused at once: not waited for, not replaced."""
        path = tmp_path / "pipe" if kind == "pipe" else Path(os.devnull)
        if kind == "pipe":
            os.mkfifo(path)

        with pytest.raises(StateError, match="is not a file"):
            read(path)
        with pytest.raises(StateError, match="is not a file"):
            write(path, tiny_state())

        assert not path.is_file()

    def test_bare_name(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name without a folder is a file in the current one."""
        monkeypatch.chdir(path.parent)

        write(path.name, tiny_state())

        assert tiny_state() == read(path)

    @posix
    def test_longest_name(self, tmp_path: Path) -> None:
        """The longest name that the system allows can be used."""
        path = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))

        write(path, tiny_state())

        assert tiny_state() == read(path)

    @posix
    @pytest.mark.parametrize("exists", [True, False])
    def test_link(self, tmp_path: Path, exists: bool) -> None:
        """A symbolic link stays one; what it names is written."""
        (tmp_path / "elsewhere").mkdir()
        target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
        if exists:
            write(target, state(b"old"))
        link.symlink_to(target)

        write(link, tiny_state())

        assert link.is_symlink()
        assert tiny_state() == read(target) == read(link)
        assert [target] == list(target.parent.iterdir())


@posix
class TestPermissions:
    def test_new_file(self, path: Path, umask: int) -> None:
        """A new file has the permissions that the umask leaves."""
        write(path, tiny_state())

        assert 0o666 & ~umask == mode(path)

    @pytest.mark.parametrize("bits", [0o600, 0o664])
    @pytest.mark.usefixtures("umask")
    def test_old_file(self, path: Path, bits: int) -> None:
        """A file that is replaced keeps its permissions, wider or narrower."""
        write(path, tiny_state())
        path.chmod(bits)

        write(path, state(b"new"))

        assert (bits, b"new") == (mode(path), read(path).payload)


class TestThreads:
    def test_concurrent(self, path: Path) -> None:
        """Whoever writes at the same time, a reader sees one whole state."""
        states = [state(bytes([number]) * 100_000) for number in range(2)]
        write(path, states[0])
        together = threading.Barrier(3)
        seen: list[SavedState] = []

        def write_often(one: SavedState) -> None:
            together.wait()
            for _ in range(20):
                write(path, one)

        writers = [threading.Thread(target=write_often, args=[one]) for one in states]
        for writer in writers:
            writer.start()
        together.wait()
        while any(writer.is_alive() for writer in writers):
            seen.append(read(path))
        for writer in writers:
            writer.join()

        assert all(one in states for one in [*seen, read(path)])
        assert [path] == list(path.parent.iterdir())
