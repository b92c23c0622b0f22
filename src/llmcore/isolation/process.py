"""
`EngineProcess`: the child in which an engine runs, from its start to its end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from llmcore.errors import (
    BackendCrashedError,
    BackendUnavailableError,
    LlmcoreError,
)
from llmcore.isolation.lane import Check, Lane
from llmcore.isolation.log import Log
from llmcore.isolation.memory import SharedMemory
from llmcore.isolation.wire import BACKEND, RING
from llmcore.values import BackendInfo

LAST_WORDS = 1.0
"""Seconds that a child whose connection broke has to end by itself, and to be read."""

BIRTH = 120.0
"""Seconds that a child has to start Python, and to import and create its engine."""

FAREWELL = 5.0
"""Seconds that a child has to free its engine, and then again to end."""


class EngineProcess:
    """
    Lives until `close` or `kill`; if it dies or is given up before, every call raises.

    Any thread may use it.

    Args:
        info: Of the backend.

        watchdog: See `Lane`.

    Raises:
        BackendUnavailableError: The backend cannot be created there.

        BackendCrashedError: It died of that.
    """

    def __init__(self, info: BackendInfo, watchdog: float | None) -> None:
        self._name = info.name
        self._watchdog = watchdog
        self._ending = threading.Lock()
        self._obituary: str | None = None
        self._released = False
        self._idle: list[Lane] = []
        self._door, door = socket.socketpair()
        bell, ringer = os.pipe()
        os.set_blocking(ringer, False)
        self._bell = open(ringer, "wb", buffering=0)  # noqa: SIM115
        try:
            self._process = _start(door.fileno(), bell)
        except OSError as error:
            self._door.close()
            self._bell.close()
            raise BackendUnavailableError(
                f"no process for the {info.name} engine can be started: {error}"
            ) from error
        finally:
            door.close()
            os.close(bell)
        self._log = Log(self._process, info.name)
        try:
            self._create(info.factory)
        except BaseException:
            self.kill()
            raise

    def _create(self, factory: str) -> None:
        lane = self.open_lane(watchdog=BIRTH)
        try:
            lane.ask("start", BACKEND, factory)
        except BackendCrashedError:
            raise
        except LlmcoreError as error:
            raise BackendUnavailableError(
                f"backend {self._name!r} cannot be created in a process of its own, "
                f"its factory {factory!r} failed: {error}"
            ) from error
        finally:
            lane.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs and was not given up."""
        return self._obituary is None and self._process.poll() is None

    # -- calls -------------------------------------------------------------------------

    def open_lane(
        self, memory: SharedMemory | None = None, watchdog: float | None = None
    ) -> Lane:
        """
        A new connection to a new thread of the child.

        Args:
            memory: What both sides shall see of the object made through it.

            watchdog: Another one than usual.
        """
        ours, theirs = socket.socketpair()
        handles = [theirs.fileno()] + ([] if memory is None else [memory.handle])
        try:
            socket.send_fds(self._door, [b"+"], handles)
        except OSError as error:
            ours.close()
            raise self.give_up() from error
        finally:
            theirs.close()
        return Lane(ours, self._name, self.give_up, watchdog or self._watchdog)

    def call(
        self,
        op: str,
        target: int,
        *arguments: Any,
        check: Check | None = None,
        progress: Callable[[float], bool] | None = None,
    ) -> Any:
        """`Lane.ask` on a connection that nobody uses now."""
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = self.open_lane()
        try:
            return lane.ask(op, target, *arguments, check=check, progress=progress)
        finally:
            self._idle.append(lane)
            if self._released:
                self._close_idle()

    def discard(self, number: int) -> None:
        """Free what a call that was cut short may have left."""
        with suppress(Exception):
            self.call("close", number)

    def ring(self, target: int, moment: int) -> None:
        """Tell a context to stop. Any moment, even in a signal handler; never waits."""
        # Nobody there, or closed: the call that it was meant for will find out.
        with suppress(OSError, ValueError):
            self._bell.write(RING.pack(target, moment))

    # -- its end -----------------------------------------------------------------------

    def give_up(self, said: str | None = None) -> BackendCrashedError:
        """
        Make sure that it is dead, and find out how it died.

        Args:
            said: What it did wrong; None if only its connection broke.

        Returns:
            What to raise; the same for everybody.
        """
        with self._ending:
            if self._obituary is None:
                how = self._ended() if said is None else None
                self._process.kill()
                self._process.wait()
                how = how or f"{said or 'closed its connection'} and was killed"
                self._log.drain(LAST_WORDS)
                self._obituary = (
                    f"the process of the {self._name} engine {how}{self._log.last}"
                )
        return BackendCrashedError(self._obituary)

    def _ended(self) -> str | None:
        """How it ended by itself; None if it did not."""
        try:
            code = self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            return None
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL, perhaps by the system for lack of memory"
        if code < 0:
            return f"was killed by {_signal_name(-code)}"
        return f"ended with exit code {code}"

    def close(self) -> None:
        """Let it free its engine and end; past the deadline it is killed."""
        try:
            if self.alive:
                self._say_goodbye()
        finally:
            self.kill()

    def _say_goodbye(self) -> None:
        lane = self.open_lane(watchdog=FAREWELL)
        try:
            with suppress(BackendCrashedError):
                lane.ask("close", BACKEND)
        finally:
            lane.close()
        self._door.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)

    def kill(self) -> None:
        """End it now, if it has not ended, and keep nothing of it."""
        with self._ending:
            self._obituary = self._obituary or f"the {self._name} engine was closed"
        self._process.kill()
        self._process.wait()
        if self._released:
            return
        self._released = True
        self._close_idle()
        self._door.close()
        self._bell.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._log.close(LAST_WORDS)

    def _close_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()


def _start(door: int, bell: int) -> subprocess.Popen[bytes]:
    """
    A fresh interpreter that finds the same modules.

    Nothing is ever written to its standard input, which ends when this process does,
    however that happens. In a process group of its own, Ctrl-C does not reach it.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "llmcore.isolation.child"),
            *(str(door), str(bell)),
        ],
        pass_fds=(door, bell),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # ggml would have a debugger print a stack, long enough to hide what failed.
        env={"GGML_NO_BACKTRACE": "1", **os.environ, "PYTHONPATH": path},
        process_group=0,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
