"""
Reading and writing state files: whole ones only, in both directions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from llmcore.errors import StateError
from llmcore.state_file.layout import InvalidFileError, pack, unpack
from llmcore.state_file.values import SavedState

Path = str | os.PathLike[str]


def write(path: Path, state: SavedState) -> None:
    """
    Save a state: the file is the old one or the whole new one at every moment.

    A new file gets the permissions that the umask leaves; one that is replaced keeps
    its permission bits. A symbolic link is followed, and what it names is written.
    Any thread; of several writers at once, one wins and leaves a whole file. A process
    that is killed meanwhile may leave a ``.llmcore-*.tmp`` beside it, to be deleted.

    Raises:
        OSError: As the system raised it, for a full disk or missing permission; the
            old file is untouched and nothing is left beside it.

        StateError: The path names something else than a file, such as a device.
    """
    path = os.path.realpath(path)
    mode = _mode_to_keep(path)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".llmcore-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if mode is not None:
                os.chmod(temporary, mode)
            for part in pack(state):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        # No Python function in between: a pending Ctrl-C would be raised in it.
        try:  # noqa: SIM105
            os.unlink(temporary)
        except OSError:
            pass
        raise
    _sync_folder(folder)


def read(path: Path) -> SavedState:
    """
    Read a state file and check that it is whole.

    Memory is bounded by the size of the file, whatever it says of itself.

    Raises:
        OSError: As the system raised it: no such file, no permission, a directory.

        StateError: Names the path and what is wrong: not a state file, of a newer
            format, cut off, or damaged. Any thread.
    """
    _refuse_special(path)
    with open(path, "rb") as file:
        try:
            return unpack(file, os.fstat(file.fileno()).st_size)
        except InvalidFileError as invalid:
            raise StateError(
                f"cannot load state: {str(path)!r} {invalid}"
            ) from invalid.__cause__


def _mode_to_keep(path: str) -> int | None:
    """Permission bits of the file that will be replaced; None if there is none."""
    try:
        _refuse_special(path)
        # Opened, because a file that must not be written must not be replaced either.
        with open(path, "r+b") as file:
            return stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return None


def _sync_folder(folder: str) -> None:
    """Make the new name durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse_special(path: Path) -> None:
    """Pipes would wait for their other end, and devices must not be replaced."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise StateError(f"{str(path)!r} is not a file: pass the path of a state file")
