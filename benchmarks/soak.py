"""
Does it stay right for long: random operations from threads and tasks, with disposals in
the middle of everything. Each greedy answer is compared with that of a fresh context.

    python -m benchmarks.soak --minutes 20 --backend llama_cpp --threads 6

Needs llmcore-conformance for its tiny model, or takes any with --model. Exit code 1: a
violation; 2: something hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import gc
import itertools
import math
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import anyio
import psutil  # type: ignore[import-untyped]

from benchmarks.soak_program import Soak
from benchmarks.soak_world import Engine, watch

ROUND = 10.0
"""Seconds of programs, after each of which all is looked at while nothing runs."""

HANGS = 60.0
"""Seconds after which an operation hangs."""


def resident() -> float:
    """Of this process, in KiB."""
    return float(psutil.Process().memory_info().rss) / 1024


def hung(what: str) -> None:
    """Tell where every thread is, and end."""
    print(f"HANGS: {what}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(2)


def run_round(soak: Soak, threads: int, seed: int, seconds: float) -> None:
    """Run programs; every third thread has an event loop with tasks."""
    end = time.monotonic() + seconds
    loops = itertools.cycle(("asyncio", "trio"))
    started = []
    for number in range(threads):
        begin = functools.partial(soak.run, seed + number, end)
        if number % 3 == 2:
            run, loop = functools.partial(soak.run_tasks, seed + number), next(loops)
            begin = functools.partial(anyio.run, run, end, backend=loop)
        started.append(threading.Thread(target=begin))
        started[-1].start()
    for thread in started:
        thread.join()
    soak.settle()
    gc.collect()


class Report:
    """Lines about what a soak did, and how large the process was."""

    def __init__(self, soak: Soak) -> None:
        self._tally, self._oracle = soak.tally, soak.oracle
        self._start = time.monotonic()
        self._sizes: list[tuple[float, float]] = []
        self._told = 0

    def measure(self) -> None:
        """Note the size, and tell of each minute that passed."""
        minutes = (time.monotonic() - self._start) / 60
        self._sizes.append((minutes, resident()))
        if int(minutes) > self._told:
            self._told = int(minutes)
            print(f"minute {self._told}: {self._done}", flush=True)

    @property
    def _done(self) -> str:
        counts = self._tally.counts
        done = ", ".join(
            f"{counts[what]} {what}" for what in ("operations", "answers", "disposals")
        )
        return f"{done}, RSS {self._sizes[-1][1] / 1024:.1f} MiB"

    @property
    def slope(self) -> float:
        """KiB each minute, by least squares over the last three quarters."""
        later = [one for one in self._sizes if one[0] >= self._sizes[-1][0] / 4]
        if len(later) < 2:
            return math.nan
        return statistics.linear_regression(*zip(*later, strict=True)).slope

    def finish(self) -> bool:
        """The summary; whether nothing was wrong."""
        tally = self._tally
        print(f"all: {self._done}")
        print(f"near ties among the answers: {self._oracle.near_ties}")
        for name, count in sorted(tally.errors.items()):
            print(f"  {count} {name}")
        print(f"RSS slope over the last three quarters: {self.slope:.0f} KiB/minute")
        print(f"violations: {len(tally.violations)}")
        return not tally.violations


def soak_for(minutes: float, engine: Engine, threads: int, seed: int) -> bool:
    """Whether nothing was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(engine, Path(folder))
        watch(soak.tally, HANGS, hung)
        report = Report(soak)
        end = time.monotonic() + 60 * minutes
        while (left := end - time.monotonic()) > 0:
            run_round(soak, threads, seed, min(ROUND, left))
            seed += 1000
            report.measure()
        soak.close()
        return report.finish()


def main() -> None:
    """Soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--backend", choices=["null", "llama_cpp"], default="llama_cpp")
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: a tiny one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faulthandler.enable()  # a crash of the engine tells where
    warnings.simplefilter("ignore", ResourceWarning)  # forgetting is on purpose
    with tempfile.TemporaryDirectory() as folder:
        path = None if args.backend == "null" else args.model
        if args.backend != "null" and path is None:
            from llmcore_conformance.models import tiny_llama

            path = tiny_llama(Path(folder) / "tiny.gguf")
        engine = Engine(args.backend, path)
        right = soak_for(args.minutes, engine, args.threads, args.seed)
    sys.exit(not right)


if __name__ == "__main__":
    main()
