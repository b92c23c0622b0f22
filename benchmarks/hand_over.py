"""
What it costs to hand tokens from the engine to those who read them.

    python -m benchmarks.hand_over [MODEL.gguf] [--pairs 15] [--tokens 48]

Ways to run the raw loop for readers in threads of their own, each against that loop
with nobody to hand over to, in interleaved pairs:

-   readers drive: who waits takes a lock and runs the next step, for all;
-   readers drive in turn: as happens when readers do something with each token;
-   a decode thread: runs ahead by at most 8 tokens for each reader, and wakes those who
    wait.

And what putting a token, waking its reader and getting it costs with no engine at all.
OpenMP keeps a pool of threads for each thread that calls the engine, so the threads
that each way adds to the process are counted near its end.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from benchmarks.child import in_threads, timed
from benchmarks.common import pairs, table
from benchmarks.raw import Raw
from llmcore.cli.demo import demo_model

AHEAD = 8
CONTEXT = {
    "n_batch": 512,
    "n_ubatch": 512,
    "flash_attn_type": -1,
    "no_perf": True,
    "kv_unified": False,
}
Drawn = tuple[int, bytes]


class Steps:
    """Each call is a step of the raw loop, for all sequences; the first is prompts."""

    def __init__(self, raw: Raw, prompts: list[list[int]], count: int) -> None:
        self.readers, self.count, self.done = len(prompts), count, 0
        self.threads = 0
        self._raw, self._prompts = raw, prompts
        self._last: list[Drawn] = []
        raw.clear()

    def __call__(self) -> list[Drawn]:
        if not self.done:
            self._last = self._raw.prompts(self._prompts)
        else:
            ahead = self.done - 1
            self._raw.decode(
                (token, len(self._prompts[number]) + ahead, number, True)
                for number, (token, _) in enumerate(self._last)
            )
            self._last = [self._raw.draw(number) for number in range(self.readers)]
        self.done += 1
        if self.done == self.count - 1:
            self.threads = psutil.Process().num_threads()
        return self._last


def nobody_reads(steps: Steps) -> None:
    """The raw loop, in a thread so that its pool of threads ends with it."""

    def loop() -> None:
        for _ in range(steps.count):
            steps()

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()


def readers_drive(steps: Steps) -> None:
    """Who waits runs the next step, for all."""
    turn = threading.Lock()
    queues = [deque[Drawn]() for _ in range(steps.readers)]

    def read(number: int) -> None:
        mine = queues[number]
        for _ in range(steps.count):
            while not mine:
                with turn:
                    if not mine:
                        for other, drawn in zip(queues, steps(), strict=True):
                            other.append(drawn)
            mine.popleft()

    start_all(read, steps.readers)


def readers_drive_in_turn(steps: Steps) -> None:
    """Step 0 is run by reader 0, step 1 by reader 1, and so on."""
    queues = [deque[Drawn]() for _ in range(steps.readers)]
    woken = [threading.Lock() for _ in queues]
    for lock in woken:
        lock.acquire()

    def read(number: int) -> None:
        mine = queues[number]
        for step in range(steps.count):
            if step % steps.readers == number:
                for other, lock, drawn in zip(queues, woken, steps(), strict=True):
                    other.append(drawn)
                    if lock.locked():
                        lock.release()
            while not mine:
                woken[number].acquire()
            mine.popleft()

    start_all(read, steps.readers)


def decode_thread(steps: Steps) -> None:
    """One thread runs all steps; a raw lock wakes each reader."""
    queues = [deque[Drawn]() for _ in range(steps.readers)]
    woken = [threading.Lock() for _ in queues]
    room = threading.Lock()
    for lock in (*woken, room):
        lock.acquire()

    def read(number: int) -> None:
        mine = queues[number]
        for _ in range(steps.count):
            while not mine:
                woken[number].acquire()
            mine.popleft()
            if len(mine) == AHEAD - 1:
                with suppress(RuntimeError):  # another reader was faster
                    room.release()

    def decode() -> None:
        for _ in range(steps.count):
            while any(len(tokens) >= AHEAD for tokens in queues):
                room.acquire()
            for tokens, lock, drawn in zip(queues, woken, steps(), strict=True):
                tokens.append(drawn)
                if lock.locked():
                    lock.release()

    thread = threading.Thread(target=decode)
    thread.start()
    start_all(read, steps.readers)
    thread.join()


def start_all(read: Callable[[int], None], count: int) -> None:
    """Readers in threads of their own, also if it is only one."""
    if count > 1:
        in_threads(read, count)
        return
    thread = threading.Thread(target=read, args=(0,))
    thread.start()
    thread.join()


def compare(
    raw: Raw, prompts: list[list[int]], idle: int, tokens: int, count: int
) -> None:
    """Print each way against the loop that hands nothing over."""
    threads: dict[str, int] = {}

    def rate(way: Callable[[Steps], None]) -> Callable[[], float]:
        def run() -> float:
            steps = Steps(raw, prompts, tokens)
            seconds, _ = timed(lambda: way(steps))
            threads[way.__name__] = steps.threads - idle
            return len(prompts) * tokens / seconds

        return run

    rows = []
    for way in (readers_drive, readers_drive_in_turn, decode_thread):
        found = pairs(rate(way), rate(nobody_reads), count)
        rows.append(
            (
                f"{len(prompts)} x {way.__name__.replace('_', ' ')}",
                f"{found.ours:.1f}",
                f"{found.theirs:.1f}",
                found.spread,
                f"{threads[way.__name__]} ({threads['nobody_reads']})",
            )
        )
    print(table(("way", "tokens/s", "raw", "ratio", "threads (raw)"), rows))
    print()


def bare_cost(rounds: int = 20_000) -> None:
    """Microseconds from `put` in one thread to `get` in another that waits."""
    for name, channel in (
        ("deque and raw lock", RawLockChannel),
        ("deque and condition", ConditionChannel),
        ("queue.SimpleQueue", queue.SimpleQueue),
    ):
        costs = [_ping_pong(channel, rounds // 10) for _ in range(10)]
        print(f"put, wake, get by {name}: {statistics.median(costs):.1f} µs")


def _ping_pong(channel: Callable[[], Channel], rounds: int) -> float:
    there, back = channel(), channel()

    def answer() -> None:
        for _ in range(rounds):
            back.put(there.get())

    thread = threading.Thread(target=answer)
    thread.start()

    def ask() -> None:
        for number in range(rounds):
            there.put(number)
            back.get()

    seconds, _ = timed(ask)
    thread.join()
    return seconds / rounds / 2 * 1e6


class RawLockChannel:
    """As `decode_thread` does it."""

    def __init__(self) -> None:
        self._items = deque[object]()
        self._woken = threading.Lock()
        self._woken.acquire()

    def put(self, item: object) -> None:
        self._items.append(item)
        if self._woken.locked():
            self._woken.release()

    def get(self) -> object:
        while not self._items:
            self._woken.acquire()
        return self._items.popleft()


class ConditionChannel:
    """What one would write first."""

    def __init__(self) -> None:
        self._items = deque[object]()
        self._changed = threading.Condition()

    def put(self, item: object) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def get(self) -> object:
        with self._changed:
            while not self._items:
                self._changed.wait()
            return self._items.popleft()


Channel = RawLockChannel | ConditionChannel | queue.SimpleQueue[object]


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    bare_cost()
    idle = psutil.Process().num_threads()
    threads = {"n_threads": args.threads, "n_threads_batch": args.threads}
    for count in (1, 8):
        size = {"n_ctx": 256 * count, "n_seq_max": count}
        raw = Raw.load(args.model, CONTEXT | threads | size)
        # Any tokens do: speed does not depend on them.
        compare(
            raw,
            [[100 + i, 200, 300, 400] for i in range(count)],
            idle,
            args.tokens,
            args.pairs,
        )


if __name__ == "__main__":
    main()
