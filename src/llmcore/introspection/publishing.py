"""
`publish`: a thread that shows the live tree of this process to its user.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import struct
import threading
from multiprocessing.connection import wait
from pathlib import Path

import msgspec

from llmcore.introspection.folder import SUFFIX, private_folder
from llmcore.introspection.values import remember_births, snapshot

PATIENCE = 1.0
"""Seconds for a reader to take its answer, while others wait."""

_WAITING = 16
_log = logging.getLogger(__name__.rpartition(".")[0])


def publish() -> Path:
    """
    Let this user's other processes see the live tree of this one, until it exits.

    Doing it twice is fine. A forked child is not seen; it may publish itself.

    Returns:
        The socket.

    Raises:
        OSError: There is no folder for the socket that only this user can enter, or
            this is no POSIX system.
    """
    global _publisher
    with _lock:
        if _publisher is None:
            remember_births()
            _publisher = _Publisher(private_folder())
        return _publisher.path


def publish_if_asked() -> None:
    """`publish` if ``LLMCORE_PS`` is ``1``; what hinders it is only logged."""
    if os.environ.get("LLMCORE_PS") == "1":
        try:
            publish()
        except (OSError, RuntimeError) as error:
            _log.warning("LLMCORE_PS=1 has no effect: %s", error)


def withdraw() -> None:
    """Let nobody see it any more; doing it twice is fine."""
    global _publisher
    with _lock:
        publisher, _publisher = _publisher, None
    if publisher is not None:
        publisher.close()


class _Publisher:
    """A socket and the thread that answers there; lives until `close`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._bell, self._ringer = socket.socketpair()
        try:
            # It gets its name when it answers: whoever finds it may believe that
            # there is a process behind it.
            early = self.path.with_suffix(".new")
            self._listener.bind(str(early))
            self._listener.listen(_WAITING)
            early.rename(self.path)
            self._thread = threading.Thread(
                target=self._run, name="llmcore-introspection", daemon=True
            )
            self._thread.start()
        except BaseException:
            self.path.unlink(missing_ok=True)
            self.close_files()
            raise

    def close(self) -> None:
        """Remove the socket and end the thread."""
        self.path.unlink(missing_ok=True)
        self._ringer.close()
        self._thread.join(2 * PATIENCE)
        self.close_files()

    def close_files(self) -> None:
        """Close what a forked child inherits; nothing outside of it is changed."""
        for end in (self._listener, self._bell, self._ringer):
            end.close()

    def _run(self) -> None:
        while self._bell not in wait([self._listener, self._bell]):
            try:
                self._answer()
            except Exception as error:  # of one reader: the next one gets an answer
                _log.debug("a reader got no answer: %s", error)
                wait([self._bell], PATIENCE)  # it may happen again at once

    def _answer(self) -> None:
        """Serve one connection: nothing is read, whatever it sends."""
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            if _is_own(connection):
                connection.sendall(msgspec.json.encode(snapshot()))


def _is_own(connection: socket.socket) -> bool:
    """Whether the other end is this user's; elsewhere than on Linux the folder says."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = struct.unpack("3i", found)
    return bool(user == os.geteuid())


_publisher: _Publisher | None = None
_lock = threading.Lock()
atexit.register(withdraw)


def _after_fork_in_child() -> None:
    """The socket is the parent's: only forget it here."""
    global _publisher, _lock
    _lock = threading.Lock()
    publisher, _publisher = _publisher, None
    if publisher is not None:
        publisher.close_files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
