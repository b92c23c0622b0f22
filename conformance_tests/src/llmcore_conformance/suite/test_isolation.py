"""Engines in processes of their own: isolation.md."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

import llmcore
from llmcore import Context, Llama, Sequence
from llmcore.errors import BackendCrashedError, BrokenError
from llmcore_conformance import clause, faulty
from llmcore_conformance.checks import assert_becomes, in_thread, outcome
from llmcore_conformance.probes import SIZE, FreshAnswers, answer
from llmcore_conformance.suite.test_plugin import READ_INFO
from llmcore_conformance.target import Target

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "send_fds"), reason="isolation needs a POSIX system"
)

Start = Callable[..., Llama]


def pid_of(llama: Llama) -> int:
    """The number of the child."""
    with llama._use() as backend:
        return int(backend.pid)


def runs(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # not Linux, or gone by now
        return not Path("/proc/self").exists()
    return state != "Z"


@contextmanager
def starting(target: Target, patience: float) -> Iterator[Start]:
    """
    ``start()`` makes an isolated instance of the engine under test, ``start(fault)``
    one with a fault of `faulty`.
    """
    info = target.describe()

    def start(fault: str = "", **options: Any) -> Llama:
        from llmcore.isolation import isolated

        factory = f"{faulty.__name__}:{fault}" if fault else info.factory
        llama = llmcore.get_llama(isolated(evolve(info, factory=factory), **options))
        cleanup.callback(end, llama, pid_of(llama))
        return llama

    def end(llama: Llama, pid: int) -> None:
        with suppress(Exception):
            llama.dispose(timeout=patience)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as cleanup:
        patch.setenv(faulty.ENGINE, info.factory)
        yield start


@pytest.fixture
def start(target: Target, patience: float) -> Iterator[Start]:
    """See `starting`."""
    with starting(target, patience) as start:
        yield start


def new_context(target: Target, llama: Llama) -> Context:
    """A context of one sequence over the model under test."""
    model = llama.load_model(target.model_path, gpu_layers=0)  # some have bad devices
    return model.create_context(context_size=SIZE, threads=1)


# -- what an isolated engine is --------------------------------------------------------


@frozen(kw_only=True)
class Crash:
    """
    An engine that died, and another instance that saw it.

    Attributes:
        llama: Whose engine died, with a sequence that was in use then.

        spare: A context on it that was in nobody's use.

        error: What the call raised that killed it.

        witness: A sequence of the other instance.

        prompt: For both.

        before: What the witness answered before.
    """

    llama: Llama
    sequence: Sequence
    spare: Context
    error: Exception | None
    witness: Sequence
    prompt: list[int]
    before: tuple[int, ...]


@pytest.fixture(scope="module")
def crash(target: Target, patience: float) -> Iterator[Crash]:
    """One for all tests of this file: what they do to it disturbs none of them."""
    with starting(target, patience) as start:
        witness = new_context(target, start()).get_sequence()
        model = witness.context.model
        prompt = model.tokenize(
            "Once upon a time there was", add_bos=model.info.add_bos
        )
        before = answer(witness, prompt)
        llama = start("crashing")
        context = new_context(target, llama)
        sequence = context.get_sequence()
        sequence.evaluate(prompt)
        spare = context.model.create_context(context_size=SIZE, threads=1)
        error = None
        try:
            llama.devices()
        except Exception as raised:
            error = raised
        yield Crash(
            llama=llama,
            sequence=sequence,
            spare=spare,
            error=error,
            witness=witness,
            prompt=prompt,
            before=before,
        )


@clause("iso.same-answers")
def test_an_isolated_engine_answers_as_any_other(
    crash: Crash, as_new: FreshAnswers
) -> None:
    """A new sequence there draws what a new sequence draws here."""
    assert crash.before == as_new(crash.prompt)


# -- deaths ----------------------------------------------------------------------------


@clause("iso.crash")
def test_a_crash_is_an_exception_that_says_how(crash: Crash) -> None:
    """An engine that aborts leaves an error with the name of the signal."""
    assert isinstance(crash.error, BackendCrashedError), repr(crash.error)
    assert "SIGABRT" in str(crash.error), "the error does not say how the engine died"


@clause("iso.last-words")
def test_the_error_holds_what_the_engine_said_last(crash: Crash) -> None:
    """A line that was written right before the crash is in the message."""
    assert faulty.LAST_WORDS in str(crash.error)


@clause("iso.broken")
def test_what_lives_on_a_dead_engine_refuses_its_use(crash: Crash) -> None:
    """Instance, model, context and sequence raise BrokenError, again and again."""
    context = crash.sequence.context
    uses: list[Callable[[], object]] = [
        crash.llama.devices,
        lambda: context.model.tokenize("a"),
        context.memory_info,
        lambda: crash.sequence.evaluate(crash.prompt),
        lambda: crash.sequence.generate(crash.prompt).result,
    ]
    for use in uses * 2:
        with pytest.raises(BrokenError):
            use()


@clause("iso.broken")
def test_what_lives_on_a_dead_engine_can_be_disposed(crash: Crash) -> None:
    """Disposing a context there raises nothing, and it is disposed."""
    crash.spare.dispose()
    assert crash.spare.disposed


@clause("iso.neighbours")
def test_an_instance_beside_a_dead_one_answers_as_before(crash: Crash) -> None:
    """The other child draws the same tokens for the same prompt."""
    assert answer(crash.witness, crash.prompt) == crash.before


@clause("iso.again")
def test_a_new_instance_works_after_a_crash(
    target: Target, start: Start, crash: Crash
) -> None:
    """It loads the model and answers."""
    sequence = new_context(target, start()).get_sequence()
    assert answer(sequence, crash.prompt) == crash.before


@clause("iso.replay")
def test_a_sequence_goes_on_although_its_engine_was_killed(
    target: Target, start: Start, crash: Crash
) -> None:
    """What it held when kill -9 struck is there again, in another child."""
    llama = start(restart="replay")
    sequence = new_context(target, llama).get_sequence()
    sequence.evaluate(crash.prompt[:-1])
    killed = pid_of(llama)
    os.kill(killed, signal.SIGKILL)
    assert answer(sequence, crash.prompt) == crash.before
    assert pid_of(llama) != killed, "the child that was killed still answers"


# -- children that do not crash --------------------------------------------------------


def assert_given_up(llama: Llama, patience: float, what: str) -> None:
    """Asking for the devices ends the child, with an error that says why."""
    __tracebackhide__ = True
    pid = pid_of(llama)
    with pytest.raises(BackendCrashedError, match=what):
        outcome(in_thread(llama.devices), patience, "a call of the child")
    assert not runs(pid), "the child was not ended"


@clause("iso.hang")
def test_a_call_that_hangs_is_given_up(start: Start, patience: float) -> None:
    """After the seconds of the watchdog the child is killed."""
    assert_given_up(start("hanging", watchdog=0.2), patience, "no answer to 'devices'")


@clause("iso.untrusted")
@pytest.mark.parametrize("lie", ["malformed", "oversized", "mistyped", "late"])
def test_a_child_that_answers_nonsense_is_given_up(
    start: Start, patience: float, lie: str
) -> None:
    """Nothing of the reply is believed, and nothing more is asked."""
    assert_given_up(start(lie), patience, "sent a malformed reply to 'devices'")


# -- the life of the child -------------------------------------------------------------


@clause("iso.dispose-ends")
def test_disposing_the_instance_ends_its_child(target: Target, start: Start) -> None:
    """With a model and a context on it, too, nothing is left when it returns."""
    llama = start()
    new_context(target, llama)
    pid = pid_of(llama)
    llama.dispose()
    assert not runs(pid), "the child outlives the instance"


PROGRAM = """
import sys
import llmcore
from llmcore.isolation import isolated

backend = isolated(target.describe())
llama = llmcore.get_llama(backend)
target.load(llama).create_context(context_size=128, threads=1)
print(backend.pid)
"""
STAY = """
sys.stdout.flush()
sys.stdin.read()
"""


@frozen(kw_only=True)
class Program:
    """A program that uses an isolated engine and waits, and what it printed."""

    process: subprocess.Popen[str]
    child: int
    imported: str


@pytest.fixture(scope="module")
def program(target: Target) -> Iterator[Program]:
    """It waits to be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", target.source + PROGRAM + READ_INFO + STAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child, imported = process.stdout.readline(), process.stdout.readline()
    assert imported, "the program ended, see its standard error"
    yield Program(process=process, child=int(child), imported=imported.strip())
    process.kill()
    process.communicate()
    with suppress(ProcessLookupError):
        os.kill(int(child), signal.SIGKILL)


@clause("iso.not-loaded")
def test_the_engine_is_not_imported_where_it_is_used(program: Program) -> None:
    """With a context on it, neither its module nor a package it requires is there."""
    assert program.imported == "imported:"


@clause("iso.no-orphan")
def test_the_child_ends_with_its_parent(program: Program, patience: float) -> None:
    """Also when that is killed by SIGKILL, and can do nothing about it."""
    assert runs(program.child)
    program.process.kill()
    assert_becomes(lambda: not runs(program.child), patience, "the end of the child")
