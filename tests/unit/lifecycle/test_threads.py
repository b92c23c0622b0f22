from __future__ import annotations

import threading
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcore.errors import (
    BusyError,
    DisposedError,
    DisposeError,
    DisposeTimeoutError,
)
from llmcore.lifecycle import (
    Exclusion,
    Operation,
    Resource,
)

from .kit import PATIENCE, Ledger, run_in_thread, until_freed

picks = st.integers(0, 1000)
Step = tuple[str, int, int]
STEPS = ["create", "use", "dispose", "wait", "poll", "inside", "move", "work", "unused"]
steps = st.tuples(st.sampled_from(STEPS), picks, picks)
FINE = (
    BusyError,
    DisposedError,
    DisposeError,
    DisposeTimeoutError,
    ValueError,  # a move that would make a cycle
)


class Crowd:
    """A tree that several threads work on at once."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.lock = threading.Lock()
        self.count = 0
        self.pool: list[Resource] = []
        for parent in (None, None, 0, 0, 1, 2):
            self.create(None if parent is None else self.pool[parent])

    def create(self, parent: Resource | None) -> None:
        with self.lock:
            self.count += 1
            name = f"c{self.count}"
        exclusion = Exclusion() if self.count % 3 == 0 else None
        if parent is None:
            made = self.ledger.make(name)
        else:
            with self.ledger.use(parent):  # so that it does not go before its child
                made = self.ledger.make(name, parent, exclusion=exclusion)
        self.pool.append(made)

    def run(self, start: threading.Barrier, program: list[Step]) -> None:
        start.wait(PATIENCE)
        for step in program:
            try:
                self.do(*step)
            except FINE:
                continue

    def do(self, action: str, at: int, other: int) -> None:
        a = self.pool[at % len(self.pool)]
        b = self.pool[other % len(self.pool)]
        if action == "create":
            self.create(a)
        elif action == "use":
            with self.ledger.use(a), self.ledger.use(b):
                pass
        elif action == "dispose":
            a.dispose()
        elif action == "wait":
            a.dispose(inflight="wait")
        elif action == "poll":
            a.dispose(timeout=0)
        elif action == "inside":
            with self.ledger.use(a):
                b.dispose()
        elif action == "move":
            a.move_to(b)
        elif action == "work":
            with Operation(a._node) as work, self.ledger.use(a, work):
                pass
        else:
            with b.lease():
                a.dispose_if_unused()


class TestThreads:
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(st.lists(st.lists(steps, max_size=12), min_size=3, max_size=4))
    def test_any_program(self, programs: list[list[Step]]) -> None:
        """Any steps in any threads end, violate nothing and free everything once."""
        crowd = Crowd()
        start = threading.Barrier(len(programs))
        tasks = [run_in_thread(partial(crowd.run, start, p)) for p in programs]
        for task in tasks:
            task.result()

        def dispose_all() -> None:
            for resource in crowd.pool:
                resource.dispose()

        run_in_thread(dispose_all).result()
        until_freed(*crowd.pool)

        assert not crowd.ledger.violations
        assert sorted(crowd.ledger.freed) == sorted(crowd.ledger.handles)
