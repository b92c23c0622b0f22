"""
`os.fork` in a process that has models loaded.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

from fault_scenarios.disposal import public_calls
from fault_scenarios.kit import (
    Stack,
    Writer,
    answer,
    error_of,
    make_context,
    make_stack,
)
from fault_scenarios.table import scenario

# Newer Pythons warn of a fork beside threads, which is the point here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded")


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked child, which then ends normally; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _refused(stack: Stack) -> None:
    for calls in public_calls(stack).values():
        for call in calls:
            message = error_of(call)
            assert message.startswith("ForkError: "), message
    for resource in stack:
        resource.dispose()
    print(message)


@scenario(
    r"ForkError: chat#\d+ was created before os.fork.*same answer", real_model=True
)
def child_uses_what_it_inherited() -> None:
    """Every call in the child is refused, the child ends, the parent goes on."""
    stack = make_stack()
    alone = answer(stack.sequence)
    assert in_child(lambda: _refused(stack)) == 0
    assert answer(stack.sequence) == alone
    print("and the parent gives the same answer")


@scenario(r"ForkError: .*the thread of the parent works on", real_model=True)
def child_of_a_process_that_generates() -> None:
    """The fork happens while another thread is inside the engine."""
    stack = make_stack()
    writer = Writer(stack.sequence)
    for _ in range(5):
        assert in_child(lambda: _refused(stack)) == 0
    stack.model.dispose()
    assert "DisposedError" in error_of(writer.result)
    print("the thread of the parent works on")


@scenario("ForkError: llama.cpp was started before os.fork")
def child_starts_its_own() -> None:
    """The engine's threads are not in the child: it is refused and never hangs."""
    answer(make_context().get_sequence())
    assert in_child(lambda: print(error_of(make_context))) == 0
