"""What a process shows of itself, to whom, and for how long."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import llmcore
from llmcore.introspection import (
    processes,
    publish,
    publish_if_asked,
    publishing,
    withdraw,
)
from llmcore.testing import null_backend

from .conftest import READY, STAY, TREE, Start

PUBLISH = "import sys\nfrom llmcore.introspection import publish\npublish()\n"


def read(path: Path) -> bytes:
    """What a socket says by itself."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        while part := connection.recv(2**16):
            answer += part
    return answer


def end(program: subprocess.Popen[str]) -> int:
    """Let a program come to its end by itself."""
    program.communicate("", timeout=60)
    return program.returncode


class TestShown:
    def test_child(self, start: Start) -> None:
        """A child that opted in shows who it is and what lives in it."""
        program = start(PUBLISH + TREE + STAY)

        [found] = processes()

        assert (found.pid, found.problem) == (program.pid, "")
        assert found.version == llmcore.__version__
        assert "-c" in found.command
        assert abs(found.time - time.time()) < 3600
        assert found.rss is None or found.rss > 2**20
        shown = [(r.kind, r.state, r.created_at[1]) for r in found.resources]
        assert shown == [
            ("llama", "live", 8),
            ("model", "live", 9),
            ("context", "live", 10),
            ("sequence", "live", 11),
        ]
        assert all(r.age is not None and 0 <= r.age < 3600 for r in found.resources)
        assert found.resources[1].size == 1 << 20

    def test_json(self) -> None:
        """The answer is JSON, so that anything can read it."""
        with llmcore.get_llama(null_backend()) as llama:
            found: dict[str, Any] = json.loads(read(publish()))

            assert found["pid"] == os.getpid()
            assert llama._node.label in [r["label"] for r in found["resources"]]

    def test_while_decoding(self, start: Start) -> None:
        """It answers while the engine is inside an evaluation, and says so."""
        start(
            PUBLISH
            + TREE
            + "gate = engine.script.gate('decode')\n"
            + "gate.__enter__()\n"
            + "work = threading.Thread(target=sequence.evaluate, args=([33],))\n"
            + "work.daemon = True\n"
            + "work.start()\n"
            + "gate.wait_entered()\n"
            + STAY
        )

        [found] = processes()

        inside = {r.kind: r.uses for r in found.resources}
        assert inside == {"llama": 0, "model": 0, "context": 1, "sequence": 1}

    def test_older_than_publish(self, start: Start) -> None:
        """What was made before it is shown, too; only its age is unknown."""
        start(TREE + PUBLISH + STAY)

        [found] = processes()

        assert [r.age is None for r in found.resources] == [True] * 4

    def test_twice(self) -> None:
        """Publishing twice is publishing once."""
        assert publish() == publish()
        assert len(processes()) == 1

    def test_many_readers(self) -> None:
        """Readers that never read, or talk instead, keep nobody from an answer."""
        path = publish()
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        try:
            for connection in silent:
                connection.connect(str(path))
                with suppress(BrokenPipeError):  # the answer was quicker
                    connection.send(b"dispose everything\n" * 100)

            assert [found.pid for found in processes()] == [os.getpid()]
        finally:
            for connection in silent:
                connection.close()

    def test_error_of_one_answer(self) -> None:
        """What goes wrong with one answer does not end the next."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publishing, "PATIENCE", 0.01)
            patch.setattr(publishing, "snapshot", lambda: 1 / 0)
            publish()
            assert "cannot be understood" in processes()[0].problem

        assert [found.problem for found in processes()] == [""]


class TestOver:
    def test_exit(self, start: Start, runtime: Path) -> None:
        """At the end of a process its socket is gone."""
        program = start(PUBLISH + STAY)

        assert end(program) == 0
        assert list(runtime.rglob("*")) == [runtime / "llmcore"]

    def test_killed(self, start: Start, runtime: Path) -> None:
        """What a killed process left is removed by whoever looks."""
        program = start(PUBLISH + STAY)
        program.kill()
        program.wait()
        assert len(list(runtime.glob("llmcore/*.sock"))) == 1

        assert processes() == []
        assert list(runtime.glob("llmcore/*.sock")) == []

    def test_stopped(self, start: Start) -> None:
        """A stopped process is told as silent, and answers when it goes on."""
        program = start(PUBLISH + STAY)
        os.kill(program.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmcore.introspection.asking.PATIENCE", 0.05)
            [found] = processes()
        os.kill(program.pid, signal.SIGCONT)

        assert found.pid == program.pid
        assert found.problem == "it does not answer: timed out"
        assert processes()[0].problem == ""

    def test_withdrawn(self, runtime: Path) -> None:
        """Who withdraws is seen no more, and may come back."""
        path = publish()
        withdraw()
        withdraw()

        assert not path.exists()
        assert processes() == []
        assert publish() != path

    def test_forked(self, start: Start) -> None:
        """A forked child is not seen as its parent, and does not take it away."""
        program = start(
            PUBLISH
            + TREE
            + "child = os.fork()\n"
            + "if child == 0:\n"
            + "    import atexit\n"
            + "    atexit._run_exitfuncs()\n"
            + "    os._exit(0)\n"
            + "os.waitpid(child, 0)\n"
            + STAY
        )

        assert [found.pid for found in processes()] == [program.pid]

    def test_forked_and_published(self, start: Start) -> None:
        """A forked child that publishes is seen beside its parent, with its own."""
        program = start(
            PUBLISH
            + TREE
            + "if os.fork() == 0:\n"
            + "    publish()\n    "
            + READY
            + "    sys.stdin.read()\n"
            + "    os._exit(0)\n"
            + "sys.stdin.read()\n"
        )

        found = {p.pid: len(p.resources) for p in processes()}

        assert found.pop(program.pid) == 4
        assert list(found.values()) == [0]


class TestPrivate:
    def test_modes(self) -> None:
        """Nobody else can enter the folder."""
        path = publish()

        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_without_runtime_folder(
        self, runtime: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without ``XDG_RUNTIME_DIR`` it is a folder for temporary files."""
        monkeypatch.delenv("XDG_RUNTIME_DIR")

        assert publish().parent == runtime / f"llmcore-{os.geteuid()}"
        assert len(processes()) == 1

    def test_open_to_others(self, runtime: Path) -> None:
        """A folder that others can enter is not used, neither to write nor to read."""
        (runtime / "llmcore").mkdir()
        (runtime / "llmcore").chmod(0o755)

        with pytest.raises(OSError, match="others may enter it; remove it, or set XDG"):
            publish()
        assert processes() == []

    def test_a_link(self, runtime: Path) -> None:
        """Nor is a link to somewhere."""
        (runtime / "elsewhere").mkdir(mode=0o700)
        (runtime / "llmcore").symlink_to(runtime / "elsewhere")

        with pytest.raises(OSError, match="it is no folder"):
            publish()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_of_another_user(self, runtime: Path) -> None:
        """Nor is what belongs to another user."""
        (runtime / "llmcore").mkdir(mode=0o700)
        os.chown(runtime / "llmcore", 12345, -1)

        with pytest.raises(OSError, match="it belongs to user 12345"):
            publish()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_reader_of_another_user(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who gets at the socket as another user gets no answer."""
        path = publish()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)

        assert read(path) == b""

    def test_long_path(self, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder too deep for a socket is named."""
        deep = runtime / ("x" * 100)
        deep.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))

        with pytest.raises(OSError, match="its path is too long for a socket"):
            publish()

    def test_no_posix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere than on POSIX it says what to do instead."""
        monkeypatch.delattr(socket, "AF_UNIX")

        with pytest.raises(OSError, match=r"use llmcore\.format_tree\(\) inside"):
            publish()


class TestAsking:
    def test_garbage(self, runtime: Path) -> None:
        """A socket that says something else is told, and left alone."""
        path = publish()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path.with_name("77-x.sock")))
            other.listen()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("llmcore.introspection.asking.PATIENCE", 0.05)
                [found] = processes(77)

        assert (found.pid, found.problem) == (77, "it does not answer: timed out")

    def test_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An answer without end is not read to its end."""
        monkeypatch.setattr("llmcore.introspection.asking.MOST", 10)
        publish()

        assert "longer than 10 bytes" in processes()[0].problem

    def test_one(self, start: Start) -> None:
        """One process can be asked for by its number."""
        program = start(PUBLISH + STAY)
        publish()

        assert [found.pid for found in processes(program.pid)] == [program.pid]
        assert len(processes()) == 2


class TestAsked:
    def test_variable(self, start: Start) -> None:
        """``LLMCORE_PS=1`` publishes before the first object is made."""
        start(TREE + STAY, LLMCORE_PS="1")

        [found] = processes()

        assert [r.kind for r in found.resources] == [
            "llama",
            "model",
            "context",
            "sequence",
        ]
        assert all(r.age is not None for r in found.resources)

    @pytest.mark.parametrize("value", ["", "0"])
    def test_not_asked(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """Other values do not."""
        monkeypatch.setenv("LLMCORE_PS", value)
        publish_if_asked()

        assert processes() == []

    def test_obstacle(
        self,
        runtime: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What hinders it is logged, and does not hinder the program."""
        monkeypatch.setenv("LLMCORE_PS", "1")
        (runtime / "llmcore").touch()
        with caplog.at_level(logging.WARNING, "llmcore.introspection"):
            publish_if_asked()

        assert "LLMCORE_PS=1 has no effect: " in caplog.text
        assert "it is no folder" in caplog.text
