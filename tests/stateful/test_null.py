from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmcore.values import CacheKind

from .crowd import programs, run_tasks, run_threads
from .faulty import Faulty
from .kit import EFFORT, Bench, null_bench
from .programs import run_machine

KINDS = [kind for kind in CacheKind if kind is not CacheKind.NONE]


@pytest.fixture(params=KINDS, name="bench")
def _bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = null_bench(request.param)
    yield bench
    bench.close()


@pytest.mark.parametrize("contexts", [1, 2])
def test_any_program(bench: Bench, contexts: int) -> None:
    """Any program of one thread gets what its author may expect."""
    run_machine(Faulty, bench, contexts=contexts, examples=25, steps=30)


@pytest.mark.parametrize("seed", range(4 * EFFORT))
def test_threads(bench: Bench, seed: int) -> None:
    """Whatever threads do, they get right answers or typed errors, and all is freed."""
    run_threads(bench, programs(seed, count=4, steps=25))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(2 * EFFORT))
def test_tasks(bench: Bench, seed: int, loop: str) -> None:
    """So do tasks."""
    run_tasks(bench, programs(seed, count=4, steps=25), loop)
