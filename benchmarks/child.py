"""
A side of a comparison as a child process: jobs come in, and answers go out, as lines of
JSON.

Needs nothing but Python itself, because a peer may have an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def serve(**work: Callable[..., object]) -> None:
    """
    Answer jobs until the input ends.

    Args:
        work: What can be asked for by name; gets the job's other fields, and returns
            what JSON can hold. An exception is answered as an error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = {"answer": work[job.pop("do")](**job)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How many seconds it took, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def in_threads(work: Callable[[int], T], count: int) -> list[T]:
    """Call it with 0, 1, ... from as many threads, all starting together."""
    if count == 1:
        return [work(0)]
    together = threading.Barrier(count)

    def start(number: int) -> T:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def generated(
    seconds: float, texts: Sequence[str], counts: Sequence[int]
) -> dict[str, object]:
    """The answer to a ``generate`` job: the texts, and the tokens of all per second."""
    return {"rate": sum(counts) / seconds, "counts": counts, "texts": texts}
