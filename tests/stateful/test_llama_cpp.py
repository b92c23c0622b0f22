from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .crowd import programs, run_tasks, run_threads
from .kit import EFFORT, Bench, llama_cpp_bench
from .programs import Programs, run_machine

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from llmcore_conformance.models import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(params=[False, True], ids=["shared", "deterministic"], name="bench")
def _bench(path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = llama_cpp_bench(path, deterministic=request.param)
    yield bench
    bench.close()


@pytest.mark.parametrize("contexts", [1, 2])
def test_any_program(bench: Bench, contexts: int) -> None:
    """Any program of one thread gets what its author may expect of a real engine."""
    run_machine(Programs, bench, contexts=contexts, examples=15, steps=25)


@pytest.mark.parametrize("seed", range(3 * EFFORT))
def test_threads(bench: Bench, seed: int) -> None:
    """Whatever threads do, they get right answers or typed errors."""
    run_threads(bench, programs(seed, count=4, steps=15))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(2 * EFFORT))
def test_tasks(bench: Bench, seed: int, loop: str) -> None:
    """So do tasks."""
    run_tasks(bench, programs(seed, count=4, steps=15), loop)
