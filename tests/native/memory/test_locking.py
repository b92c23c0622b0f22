"""``mlock=True`` where a process may lock little, in a real process of that kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMITED = """
import ctypes, os, resource, sys
limit, hard = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)  # root has it
os.execv(sys.executable, [sys.executable, "-W", "error", "-c", *sys.argv[2:]])
"""

LOADING = """
import logging, sys
from pathlib import Path
import llmcore
from llmcore.errors import ModelLoadError
from llmcore.memory.limits import check_lock, lockable
from llmcore.params import ModelParams

path = Path(sys.argv[1])
print("lockable", lockable())
try:
    check_lock(path, path.stat().st_size)
except ModelLoadError as error:
    print("refused", error)
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
with llmcore.get_llama("llama_cpp") as llama, llama._use() as engine:
    model = engine.load_model(path, ModelParams(mlock=True), lambda share: True)
    status = Path("/proc/self/status").read_text("ascii")
    print([line for line in status.splitlines() if line.startswith("VmLck")][0])
    model.close()
"""

SMALL, LARGE = 64 << 10, 4 << 20


def limited(limit: int, model: Path) -> str:
    """What a process that may lock so many bytes prints when it locks a model."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can take the right to lock from a process")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), LOADING, str(model)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (0, "") == (done.returncode, done.stderr)
    if f"lockable {limit}" not in done.stdout:
        pytest.skip("the limit does not bind here, or is lower already")
    return done.stdout


def test_too_little_is_refused(smollm2):
    """Where the engine could not lock, the check says so, names the limit and helps."""
    said = limited(SMALL, smollm2)
    assert "mlock=True needs" in said
    assert "may lock only 64.0 KiB more (RLIMIT_MEMLOCK)" in said
    assert "ulimit -l unlimited" in said
    assert "limits.conf" in said


def test_the_engine_only_warns(smollm2):
    """That check is needed: the engine itself goes on without locking."""
    said = limited(SMALL, smollm2)
    assert "failed to mlock" in said
    assert "VmLck:\t       0 kB" in said


def test_enough_is_allowed(tiny_model):
    """Under a limit that suffices nothing is refused, and the weights are locked."""
    said = limited(LARGE, tiny_model)
    assert "refused" not in said
    locked = int(said.partition("VmLck:")[2].split()[0])
    assert locked * 1024 > 0.9 * tiny_model.stat().st_size
