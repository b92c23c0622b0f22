"""
Settings of every test run.
"""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, and no opinion about how fast a machine is.
settings.register_profile(
    "llmcore",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("llmcore")

# A shell has what it runs in the background ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _collect_garbage_often() -> None:
    """Collect garbage every LLMCORE_GC_EVERY allocations, if that is set."""
    if every := os.environ.get("LLMCORE_GC_EVERY"):
        gc.set_threshold(int(every))
