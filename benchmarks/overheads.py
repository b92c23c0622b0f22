"""
What the lifecycle costs: leases, sequences, live resources, imports.

Each is measured beside something plain in the same run, because machines differ.

    python benchmarks/overheads.py
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import timeit
import tracemalloc

import llmcore
from llmcore.cli.demo import demo_model
from llmcore.lifecycle import Exclusion, Resource


class LockAndCount:
    """The least that a lease could be: a lock and a counter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._count -= 1


def microseconds(statement: str, names: dict[str, object], number: int) -> float:
    """The best of seven, which is the one that nothing disturbed."""
    return min(timeit.repeat(statement, globals=names, number=number, repeat=7)) / (
        number * 1e-6
    )


def leases() -> None:
    """Entering and leaving a lease."""
    with Resource("plain") as plain, Resource("one", exclusion=Exclusion()) as one:
        for name, lease in (
            ("a lock and a counter", LockAndCount()),
            ("lease, enter + exit", plain._node.use()),
            ("exclusive lease, enter + exit", one._node.use()),
        ):
            took = microseconds("with lease: pass", {"lease": lease}, 50_000)
            print(f"{name}: {took:.2f} µs")


def sequences() -> None:
    """Making and disposing a sequence."""
    with llmcore.get_llama("llama_cpp") as llama:
        model = llama.load_model(demo_model())
        context = model.create_context(context_size=256, sequences=2)
        made = "context.get_sequence().dispose()"
        took = microseconds(made, {"context": context}, 5_000)
        print(f"create + dispose a sequence on llama_cpp: {took:.1f} µs")


def live_resources(count: int = 10_000) -> None:
    """Memory of resources that live."""
    with Resource("parent") as parent:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [Resource("child", parent=parent) for _ in range(count)]
        size = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        print(f"{len(kept)} live resources: {size / count:.0f} bytes each")


def imports() -> None:
    """Import time, and what an import loads."""
    for code in ("pass", "import llmcore"):
        runs = [_import_ms(code) for _ in range(7)]
        print(f"python -c {code!r}: {sorted(runs)[3]:.1f} ms in imports (median of 7)")
    code = (
        "import sys, llmcore; print([m for m in ('numpy', 'llama_cpp', 'pluggy', "
        "'attrs', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    print(f"loaded by it, of the heavy ones: {done.stdout.strip()}")
    command = [sys.executable, "-c", "from llmcore.cli import main; main()", "--help"]
    took = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        took.append(time.perf_counter() - start)
    print(f"llmcore --help: {sorted(took)[3]:.3f} s (median of 7)")


def _import_ms(code: str) -> float:
    command = [sys.executable, "-X", "importtime", "-c", code]
    lines = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    # self time | cumulative | name: the sum of the self times is the whole.
    return sum(float(line.split(":")[1].split("|")[0]) for line in lines[1:]) / 1000


if __name__ == "__main__":
    leases()
    sequences()
    live_resources()
    imports()
