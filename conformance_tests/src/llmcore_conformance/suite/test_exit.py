"""The end of the process: exit.md."""

from __future__ import annotations

import os
import subprocess

import pytest

from llmcore_conformance import clause
from llmcore_conformance.fixtures import RunInSubprocess

OPEN = """
from llmcore import ChatSession
from llmcore_conformance.ledger import SeamLedger
ledger = SeamLedger()
llama = target.open(ledger)
model = target.load(llama)
context = model.create_context(context_size=128, threads=1)
sequence = context.get_sequence()
prompt = model.tokenize("Once upon a time")
endless = {token: float("-inf") for token in model.info.end_tokens}
"""


def assert_quiet(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    """The program ended with its own exit code and without a word on stderr."""
    __tracebackhide__ = True
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stderr}"
    assert not done.stderr, f"it wrote to stderr:\n{done.stderr}"


@clause("exit.clean")
def test_a_program_may_leave_everything_open(
    run_in_subprocess: RunInSubprocess,
) -> None:
    """With one resource of each kind in its globals, a program ends in silence."""
    chat = "chat = ChatSession(sequence, chat_template='{{ messages[-1].content }}')\n"
    assert_quiet(
        run_in_subprocess(OPEN + chat + "print(chat.prompt('Hi', max_tokens=2))")
    )


@clause("exit.frees")
def test_what_lives_is_freed_in_order(run_in_subprocess: RunInSubprocess) -> None:
    """At the end nothing native is left, and no promise of the seam was broken."""
    last = "atexit.register(lambda: print('left:', ledger.live, ledger.violations))\n"
    done = run_in_subprocess("import atexit\n" + last + OPEN)
    assert done.stdout.strip() == "left: {} []", done.stdout + done.stderr


@clause("exit.suspended-stream")
def test_a_stream_may_be_suspended(run_in_subprocess: RunInSubprocess) -> None:
    """A program whose stream has more to give ends in silence."""
    source = "stream = sequence.generate(prompt, logit_bias=endless)\nnext(stream)\n"
    assert_quiet(run_in_subprocess(OPEN + source))


@clause("exit.in-use")
def test_a_daemon_thread_may_be_inside_the_engine(
    run_in_subprocess: RunInSubprocess,
) -> None:
    """A program ends with its own code while a daemon thread is held in a decode."""
    source = """
import threading
gate = ledger.gate("decode", nth=2)
work = lambda: list(sequence.generate(prompt, logit_bias=endless))
threading.excepthook = lambda args: None  # the thread may say that it was stopped
threading.Thread(target=work, daemon=True).start()
gate.wait_entered()
"""
    done = run_in_subprocess(OPEN + source)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"


@clause("exit.code")
def test_sys_exit_keeps_its_code(run_in_subprocess: RunInSubprocess) -> None:
    """``sys.exit(3)`` with everything open ends with 3, in silence."""
    assert_quiet(run_in_subprocess(OPEN + "import sys\nsys.exit(3)"), code=3)


@clause("exit.exception")
@pytest.mark.parametrize("error", ["ValueError('of the program')", "KeyboardInterrupt"])
def test_only_the_programs_own_error_is_shown(
    run_in_subprocess: RunInSubprocess, error: str
) -> None:
    """The one traceback is that of the program, and its last line is the last."""
    done = run_in_subprocess(f"{OPEN}raise {error}")
    lines = done.stderr.strip().splitlines()
    assert done.returncode not in (0, None)
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert lines[-1].startswith(error.partition("(")[0]), done.stderr


@clause("exit.fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_uses_and_frees_nothing(
    run_in_subprocess: RunInSubprocess,
) -> None:
    """In the child each resource raises ForkError; the engine is not called there."""
    source = """
import os, signal, warnings
from llmcore.errors import ForkError
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
child = os.fork()
if child == 0:
    signal.alarm(60)  # one that hangs would outlive all that wait for it
    for use in (llama.devices, lambda: model.tokenize("a"), context.memory_info,
                lambda: sequence.evaluate(prompt)):
        try:
            use()
        except ForkError:
            print("refused", flush=True)
else:
    print("child ended", os.waitpid(child, 0)[1], flush=True)
    sequence.evaluate(prompt)
    print("broken promises", ledger.violations)
"""
    done = run_in_subprocess(OPEN + source)
    wanted = ["refused"] * 4 + ["child ended 0", "broken promises []"]
    assert done.stdout.splitlines() == wanted, done.stdout + done.stderr
