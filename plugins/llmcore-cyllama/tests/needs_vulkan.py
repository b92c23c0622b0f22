"""
A pytest plugin (``-p needs_vulkan``): without a Vulkan device there is nothing to test.
"""

from __future__ import annotations

import subprocess
import sys
from ctypes.util import find_library

import pytest

ASK = """
from llmcore_cyllama.backend import CyllamaBackend
print(*(device.name for device in CyllamaBackend().devices()))
"""


def pytest_configure(config: pytest.Config) -> None:
    """Skip the whole run, and say why; a driver that crashes is a failure."""
    if find_library("vulkan") is None:
        found = "not even the library libvulkan"
    else:
        done = subprocess.run(
            [sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True, check=True
        )
        if "Vulkan" in done.stdout:
            return
        found = f"only {done.stdout.strip()}"
    pytest.exit(
        f"skipped: no Vulkan device, {found}: on Debian "
        "'apt install mesa-vulkan-drivers' brings one that needs no GPU",
        returncode=0,
    )
