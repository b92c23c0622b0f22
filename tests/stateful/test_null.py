from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from llmcore.values import CacheKind

from .kit import null_bench
from .machine import Faulty

KINDS = [k for k in CacheKind if k is not CacheKind.NONE]
SETTINGS = settings(
    derandomize=True, deadline=None, max_examples=40, stateful_step_count=30
)


class TestPrograms:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("contexts", [1, 2])
    def test_any_program(self, kind: CacheKind, contexts: int) -> None:
        """Any program of one thread gets what its author may expect."""
        bench = null_bench(kind)
        machine = type(
            "Machine", (Faulty,), {"bench": bench, "contexts": contexts}
        )
        run_state_machine_as_test(machine, settings=SETTINGS)
        bench.close()
