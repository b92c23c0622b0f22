"""
`SharedMemory`: bytes that both processes see, and that no file name keeps alive.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SharedMemory:
    """
    Lives as long as somebody has it mapped; goes with the last process that has.

    Args:
        handle: An open file, which this object owns until `close_handle`.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        """The open file, to hand to the other process."""
        self._map = mmap.mmap(handle, 0)

    @classmethod
    def create(cls, size: int) -> SharedMemory:
        """So many bytes, which take no memory until they are written."""
        import fcntl  # not on Windows, where `isolated` says so

        try:
            handle = os.memfd_create("llmcore", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        except AttributeError:  # not Linux
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        os.ftruncate(handle, size)
        if hasattr(fcntl, "F_ADD_SEALS"):
            # If the other side cut it off, our next look at it would be a SIGBUS.
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(handle)

    def floats(self, count: int) -> NDArray[np.float32]:
        """A view of its first numbers, which stays valid."""
        import numpy as np

        return np.frombuffer(self._map, np.float32, count)

    def close_handle(self) -> None:
        """Keep what is mapped only."""
        os.close(self.handle)
