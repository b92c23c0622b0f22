"""
The folder of the sockets, which only its user can enter.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

SUFFIX = ".sock"

_LONGEST = 104 - len("/4194304-00000000.sock\0")  # of an address on macOS and BSD


def require_posix() -> None:
    """
    Raises:
        OSError: This platform has no sockets in the file system.
    """
    if sys.platform == "win32" or not hasattr(socket, "AF_UNIX"):
        raise OSError(
            f"a process cannot be looked into on {sys.platform}: it needs the Unix "
            "domain sockets of a POSIX system; use llmcore.format_tree() inside of it"
        )


def candidates() -> list[Path]:
    """Where the folder can be, the best place first."""
    found = [Path(tempfile.gettempdir(), f"llmcore-{os.geteuid()}")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.insert(0, Path(runtime, "llmcore"))
    return found


def private_folder() -> Path:
    """
    The folder to publish in, made if it is not there.

    Raises:
        OSError: It cannot be made, or others can enter it; says which and why.
    """
    require_posix()
    folder = next(path for path in candidates() if path.parent.is_dir())
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    obstacle = obstacle_to(folder)
    if not obstacle and len(os.fsencode(folder)) > _LONGEST:
        obstacle = "its path is too long for a socket"
    if obstacle:
        raise OSError(
            f"{folder} cannot hold the socket of this process: {obstacle}; remove it, "
            "or set XDG_RUNTIME_DIR to a folder of your own"
        )
    return folder


def private_folders() -> list[Path]:
    """Those that are there and can be trusted."""
    require_posix()
    return [path for path in candidates() if not obstacle_to(path)]


def obstacle_to(folder: Path) -> str:
    """Why a folder is not to be trusted; empty if it is."""
    try:
        found = folder.lstat()  # not what a link of somebody else points to
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return "others may enter it"
    return ""
