"""
Does a manager stay out of the way, and give everything back: how long a look-up takes
while a model is loaded, and what is left after many loads.

    python -m benchmarks.manager [MODEL.gguf] [--cycles 1000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory_cycles import resident
from llmcore.cli.demo import demo_model
from llmcore.manager import ModelManager
from llmcore.memory.estimate import estimate

LOOK_UPS = 20_000
OPTIONS = {"backend": "llama_cpp", "context_size": 256, "sequences": 2}


def look_ups(manager: ModelManager, count: int = LOOK_UPS) -> list[float]:
    """Microseconds that each of so many look-ups took."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        manager.loaded("resident")
        times.append((time.perf_counter() - begun) * 1e6)
    return times


def percentile(times: list[float], share: float) -> float:
    """The value below which such a share of them lies."""
    return statistics.quantiles(times, n=1000)[round(share * 1000) - 1]


def during_loads(manager: ModelManager, path: str) -> Iterator[float]:
    """Look-up times while a model is loaded again and again."""
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            manager.load("other", path, mmap=False, **OPTIONS)
            manager.unload("other")

    thread = threading.Thread(target=load)
    thread.start()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        yield from look_ups(manager, 500)
    stop.set()
    thread.join()


def show_look_ups(path: str) -> None:
    """Print them, idle and during loads."""
    with ModelManager(budget=None, name=None) as manager:
        manager.load("resident", path, **OPTIONS)
        for name, times in (
            ("idle", look_ups(manager)),
            ("during loads", list(during_loads(manager, path))),
        ):
            told = ", ".join(
                f"{label} {percentile(times, share):.1f}"
                for label, share in (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            )
            print(f"look-up {name}: {told} us, of {len(times)}", flush=True)


def show_cycles(path: str, cycles: int) -> None:
    """Print resident memory over cycles of three models, with room for two."""
    from llmcore_conformance.models import tiny_llama

    with tempfile.TemporaryDirectory() as folder:
        paths = [path]
        for seed in (1, 2):
            small = Path(folder, f"{seed}.gguf")
            tiny_llama(small, seed=seed, layers=8, embedding=512, heads=8)
            paths.append(str(small))
        sizes = sorted(
            estimate(path, context_size=256, sequences=2, mmap=False).total
            for path in paths
        )
        with ModelManager(budget=round(sum(sizes[-2:]) * 1.21), name=None) as manager:
            show_one_after_another(manager, paths, cycles)


def show_one_after_another(
    manager: ModelManager, paths: list[str], cycles: int
) -> None:
    """Load, ask and at last unload, so that each load has to evict."""
    sizes: list[float] = []
    for number in range(1, cycles + 1):
        id = number % len(paths)
        if not manager.loaded(id):
            manager.load(id, paths[id], mmap=False, **OPTIONS)
        manager.generate(id, "Hello", max_tokens=2, temperature=0)
        if number % len(paths) == 0:
            for info in manager.list():
                manager.unload(info["id"])
            sizes.append(resident())
        if number in (3, 30, 99, 300, cycles - cycles % 3):
            print(f"cycle {number}: {sizes[-1]:.1f} MiB", flush=True)
    half = len(sizes) // 2
    first, last = statistics.median(sizes[5:half]), statistics.median(sizes[half:])
    slope = (last - first) * 1024 / (cycles / 2)
    print(f"medians of the halves: {first:.1f} and {last:.1f} MiB: {slope:+.2f} KiB")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--cycles", type=int, default=1000)
    args = parser.parse_args()
    show_look_ups(args.model)
    show_cycles(args.model, args.cycles)


if __name__ == "__main__":
    main()
