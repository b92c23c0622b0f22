"""
What the machine says about its memory, where the platform tells.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from llmcore.values import Device

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@frozen(kw_only=True)
class MemoryState:
    """
    Memory of some devices together, in bytes.

    Attributes:
        total: What there is.

        used: In use, by anyone.

        free: The rest.

        devices: One by one.

        process: RAM that this process uses; None where nobody tells.
    """

    total: int
    used: int
    free: int
    devices: tuple[Device, ...]
    process: int | None = None

    @classmethod
    def of(cls, devices: Sequence[Device]) -> MemoryState:
        """The memory of these now."""
        return cls(
            total=sum(device.total for device in devices),
            used=sum(device.used for device in devices),
            free=sum(device.free for device in devices),
            devices=tuple(devices),
            process=process_rss(),
        )


def available_ram() -> int | None:
    """
    Bytes of RAM that this process could still get; None where nobody tells.

    On Linux the smaller of what the kernel calls available and what the limit of the
    control group leaves: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    found = [size for size in (_meminfo("MemAvailable"), _cgroup_left()) if size]
    if found:
        return min(found)
    return _physical()


def process_rss() -> int | None:
    """Bytes of RAM that this process uses now; None where nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return _rss_by_psutil()


def _rss_by_psutil() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def _meminfo(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) * 1024
    return None


def _cgroup_left() -> int | None:
    """What the control group may still use; its page cache can be dropped."""
    try:
        most = (_CGROUP / "memory.max").read_text("ascii").strip()
        if most == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text("ascii"))
        details = (_CGROUP / "memory.stat").read_text("ascii").splitlines()
        files = [int(n.split()[1]) for n in details if n.startswith("inactive_file ")]
        return max(1, int(most) - used + sum(files))
    except (OSError, ValueError, IndexError):
        return None


def _physical() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
