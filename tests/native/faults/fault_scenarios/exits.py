"""
Programs that end while everything is still there.
"""

from __future__ import annotations

import signal
import sys
import threading

from fault_scenarios.kit import (
    Stack,
    Writer,
    answer,
    make_context,
    make_stack,
    model_path,
    prompt_tokens,
)
from fault_scenarios.table import INTERRUPTED, ONLY, scenario
from llmcore import Stream

kept: Stack
suspended: Stream


@scenario("ends")
def with_a_global() -> None:
    """Everything lives in a module."""
    global kept
    kept = make_stack()
    kept.chat.prompt("a", max_tokens=4)
    print("ends")


@scenario("ends", real_model=True)
def with_a_suspended_stream() -> None:
    """A stream is half read."""
    global suspended
    sequence = make_context().get_sequence()
    suspended = sequence.generate(prompt_tokens(sequence.context.model))
    next(suspended)
    print("ends")


@scenario("ends", real_model=True)
def with_a_daemon_thread_in_the_engine() -> None:
    """A daemon thread generates and nobody stops it."""
    Writer(make_context().get_sequence())
    print("ends")


@scenario("ends")
def with_daemon_threads_that_make_contexts() -> None:
    """Four daemon threads create, use and dispose as fast as they can."""
    context = make_context()
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        while True:
            with context.model.create_context(context_size=64) as mine:
                answer(mine.get_sequence(), max_tokens=2)

    for _ in range(4):
        threading.Thread(target=_until_disposed, args=(work,), daemon=True).start()
    started.wait()
    answer(context.get_sequence())
    print("ends")


def _until_disposed(work: object) -> None:
    from llmcore.errors import DisposedError

    try:
        work()  # type: ignore[operator]
    except DisposedError:
        return


@scenario("ends in time", real_model=True)
def with_a_thread_that_ends_by_itself() -> None:
    """Python waits for a thread that is no daemon; it finishes its answer."""
    sequence = make_context().get_sequence()
    threading.Thread(
        target=lambda: print(answer(sequence)[:0] + "ends in time")
    ).start()


@scenario("interrupted", exit_codes=INTERRUPTED, stderr=ONLY + "KeyboardInterrupt\n")
def by_ctrl_c() -> None:
    """Ctrl-C in the middle of an answer, which the program does not catch."""
    global suspended
    sequence = make_context().get_sequence()
    suspended = sequence.generate(prompt_tokens(sequence.context.model))
    for number, _ in enumerate(suspended):
        if number == 3:
            print("interrupted", flush=True)
            signal.raise_signal(signal.SIGINT)


@scenario("interrupted", exit_codes=INTERRUPTED, stderr=ONLY + "KeyboardInterrupt\n")
def by_ctrl_c_inside_the_engine() -> None:
    """Ctrl-C while the main thread is inside a long evaluation."""
    context = make_context(context_size=1024)
    _interrupt_after(0.05)
    print("interrupted", flush=True)
    sequence = context.get_sequence()
    while True:
        sequence.clear()
        sequence.evaluate([1] * 1000)


def _interrupt_after(seconds: float) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@scenario("200 times caught, then the same answer")
def after_many_caught_ctrl_c() -> None:
    """Ctrl-C at any place; everything works on and nothing stays behind."""
    context = make_context(sequences=2)
    sequence = context.get_sequence()
    alone = answer(sequence)
    caught = rounds = 0
    while caught < 200:
        rounds += 1
        try:
            _interrupt_after(rounds * 41e-6 % 7e-3 + 1e-5)
            while True:
                assert answer(sequence) == alone
        except KeyboardInterrupt:
            caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert answer(sequence) == alone
    assert context.sequences_left == 1
    context.dispose(timeout=10)
    print(f"{caught} times caught, then the same answer")


@scenario("leaves", exit_codes=(7,))
def by_sys_exit_in_a_loop() -> None:
    """`sys.exit` between two pieces of a stream."""
    sequence = make_context().get_sequence()
    for _ in sequence.generate(prompt_tokens(sequence.context.model)):
        print("leaves")
        sys.exit(7)


@scenario("leaves", exit_codes=(7,))
def by_sys_exit_in_a_progress_callback() -> None:
    """`sys.exit` while the engine loads."""

    def progress(share: float) -> None:
        print("leaves")
        sys.exit(7)

    kept_too = make_stack()
    kept_too.llama.load_model(model_path(), progress=progress)


@scenario("fails", exit_codes=(1,), stderr=ONLY + "ValueError: mine\n")
def by_an_error_of_ones_own() -> None:
    """An exception that nobody catches: its traceback and nothing else."""
    global kept
    kept = make_stack()
    for _ in kept.chat.stream("a"):
        print("fails")
        raise ValueError("mine")


@scenario("terminated", exit_codes=(3,), real_model=True)
def by_a_sigterm_handler() -> None:
    """SIGTERM with a handler that exits, while another thread generates."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    Writer(make_context().get_sequence())
    print("terminated", flush=True)
    signal.raise_signal(signal.SIGTERM)
