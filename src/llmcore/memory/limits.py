"""
What the limits of this process leave: address space, and memory that can be locked.
"""

from __future__ import annotations

import os
from pathlib import Path

from llmcore.errors import ModelLoadError
from llmcore.memory.budget import RAM
from llmcore.memory.footprint import Footprint, size_text
from llmcore.memory.shortage import Pool, Shortage

MAPPED_BESIDES = 256 << 20
"""
Bytes of address space that an engine takes besides what it uses: tables that it never
fills, and the stacks of its threads. llama.cpp ends the process where they do not fit.
"""

_STATUS = Path("/proc/self/status")
_CAP_IPC_LOCK = 1 << 14


def process_shortage(footprint: Footprint, what: str) -> Shortage | None:
    """
    Why so much does not fit into the address space of this process; None if it does.

    Only a limit that somebody has set (``ulimit -v``) is looked at, and only where the
    platform tells what is used of it.
    """
    limit, mapped = _soft_limit("RLIMIT_AS"), _size("VmSize")
    reserved = mapped + MAPPED_BESIDES
    if limit is None or not mapped or reserved + footprint.on(RAM) <= limit:
        return None
    return Shortage(
        what=f"{what}, in the address space that 'ulimit -v' allows,",
        footprint=footprint,
        pools=(Pool(name=RAM, limit=limit, reserved=reserved),),
        holders={"this process": mapped, "what an engine maps besides": MAPPED_BESIDES},
    )


def bounded() -> bool:
    """Whether somebody has limited the address space of this process."""
    return _soft_limit("RLIMIT_AS") is not None


def lockable() -> int | None:
    """Bytes that this process may still lock; None for no limit, or if nobody tells."""
    limit = _soft_limit("RLIMIT_MEMLOCK")
    if limit is None or int(_status("CapEff"), 16) & _CAP_IPC_LOCK:
        return None
    return max(0, limit - _size("VmLck"))


def check_lock(path: str | os.PathLike[str], size: int) -> None:
    """
    Refuse ``mlock=True`` where an engine would only log that it could not.

    Args:
        path: The model file.

        size: Bytes of its weights in RAM.

    Raises:
        ModelLoadError: They are more than this process may lock; names the limit.
    """
    left = lockable()
    if left is not None and size > left:
        raise ModelLoadError(
            path,
            f"mlock=True needs {size_text(size)} locked in RAM but this process may "
            f"lock only {size_text(left)} more (RLIMIT_MEMLOCK): raise it with "
            "'ulimit -l unlimited' or a memlock line in /etc/security/limits.conf, or "
            "leave mlock off",
        )


def _soft_limit(name: str) -> int | None:
    """A limit in bytes; None if there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    number = getattr(resource, name, None)
    limit = resource.RLIM_INFINITY if number is None else resource.getrlimit(number)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _status(name: str) -> str:
    """
    What Linux says about this process, such as ``"8192 kB"``; ``"0"`` if it does not.

    https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
    """
    try:
        lines = _STATUS.read_text("ascii", errors="replace").splitlines()
    except OSError:
        return "0"
    found = [line.split(":", 1)[1] for line in lines if line.startswith(f"{name}:")]
    return found[0].strip() if found else "0"


def _size(name: str) -> int:
    """A size that it says, in bytes."""
    return int(_status(name).split()[0]) * 1024
