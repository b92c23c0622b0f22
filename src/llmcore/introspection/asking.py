"""
`processes`: what the processes of this user that opted in say of themselves.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import msgspec
from attrs import evolve

from llmcore.introspection.folder import SUFFIX, private_folders
from llmcore.introspection.values import ProcessInfo

PATIENCE = 2.0
"""Seconds for each step of an answer."""

MOST = 16 * 2**20
"""Bytes of an answer at most: some ten thousand resources."""


def processes(pid: int | None = None) -> list[ProcessInfo]:
    """
    The processes of this user that opted in, by their numbers.

    The sockets of those that died without removing them are removed. One that does not
    answer in time, because it is stopped, has its ``problem`` instead of a tree.

    Args:
        pid: Only this one.

    Raises:
        OSError: This is no POSIX system.
    """
    found = [
        _ask(path)
        for folder in private_folders()
        for path in folder.glob(f"{'*' if pid is None else pid}-*{SUFFIX}")
    ]
    return sorted(filter(None, found), key=lambda process: process.pid)


def _ask(path: Path) -> ProcessInfo | None:
    """What one says; None if nobody is there any more."""
    number = path.name.partition("-")[0]
    silent = ProcessInfo(pid=int(number) if number.isdigit() else 0)
    try:
        return msgspec.json.decode(_read(path), type=ProcessInfo)
    except (ConnectionRefusedError, FileNotFoundError):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    except msgspec.MsgspecError as error:
        return evolve(silent, problem=f"its answer cannot be understood: {error}")
    except OSError as error:
        return evolve(silent, problem=f"it does not answer: {error}")


def _read(path: Path) -> bytes:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        while part := connection.recv(2**16):
            answer += part
            if len(answer) > MOST:
                raise OSError(f"its answer is longer than {MOST} bytes")
    return bytes(answer)
