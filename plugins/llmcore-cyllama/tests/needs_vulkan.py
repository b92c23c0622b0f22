"""
A pytest plugin (``-p needs_vulkan``): without a Vulkan device there is nothing to test.

It ends the run while it is imported, with exit code 0: what is loaded after it needs
the native library, which does not load without a Vulkan driver. A driver that crashes
is a failure.
"""

from __future__ import annotations

import subprocess
import sys
from ctypes.util import find_library

ASK = """
from llmcore_cyllama.backend import CyllamaBackend
print(*(device.name for device in CyllamaBackend().devices()))
"""


def devices() -> str:
    """The names of what there is to compute with."""
    if find_library("vulkan") is None:
        return "not even the library libvulkan"
    done = subprocess.run(
        [sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


if "Vulkan" not in (found := devices()):
    print(
        f"skipped: no Vulkan device, only {found}: on Debian "
        "'apt install mesa-vulkan-drivers' brings one that needs no GPU"
    )
    sys.exit(0)
