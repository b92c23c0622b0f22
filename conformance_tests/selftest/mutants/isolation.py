"""Mutants of isolation.md: what an engine in a process of its own may get wrong."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from llmcore import seam
from llmcore.errors import BackendError, ModelLoadError
from llmcore.isolation import lane, wire
from llmcore.isolation.backend import IsolatedBackend
from llmcore.isolation.context import IsolatedContext
from llmcore.isolation.history import History
from llmcore.isolation.lane import Lane
from llmcore.isolation.log import Log
from llmcore.isolation.process import EngineProcess
from mutants import mutant

Patch = pytest.MonkeyPatch

ENDLESS_CHILD = """
import sys, threading
from llmcore.isolation import child
child._die_with_the_parent = lambda: None
child._watch = lambda *args: None
child.main(*map(int, sys.argv[1:]))
threading.Event().wait()
"""


@mutant(kills="iso.same-answers")
def draws_the_next_number(patch: Patch) -> None:
    """A token has another number when it comes out of the child."""
    sample = IsolatedContext.sample

    def next_number(self, row, sampler):
        return (sample(self, row, sampler) + 1) % self._model.info.vocab_size

    patch.setattr(IsolatedContext, "sample", next_number)


@mutant(kills="iso.not-loaded")
def imports_the_engine_here_too(patch: Patch) -> None:
    """The process that starts the child imports the engine to look at it."""
    start = EngineProcess.__init__

    def look_and_start(self, info, watchdog):
        importlib.import_module(info.factory.partition(":")[0])
        start(self, info, watchdog)

    patch.setattr(EngineProcess, "__init__", look_and_start)


@mutant(kills="iso.crash")
def does_not_ask_how_it_ended(patch: Patch) -> None:
    """Every death is a connection that was closed."""
    patch.setattr(EngineProcess, "_ended", lambda self: None)


@mutant(kills="iso.last-words")
def listens_to_nothing(patch: Patch) -> None:
    """What the child prints goes nowhere."""
    patch.setattr(Log, "last", "")


@mutant(kills="iso.broken")
def asks_the_dead(patch: Patch) -> None:
    """What lives on an engine is not told that its process died, and asks it again."""
    tell = seam.break_all

    def tell_others(root, cause):
        if "the process of the" not in cause:
            tell(root, cause)

    patch.setattr(seam, "break_all", tell_others)


@mutant(kills="iso.broken")
def disposing_needs_the_engine(patch: Patch) -> None:
    """A context whose process died cannot be closed."""
    close = IsolatedContext.close

    def close_the_living(self):
        lives = self._process.alive
        close(self)
        if not lives:
            raise BackendError("there is no answer to 'close'")

    patch.setattr(IsolatedContext, "close", close_the_living)


@mutant(kills="iso.neighbours")
def one_death_ends_all(patch: Patch) -> None:
    """A child that dies takes those of other instances along."""
    start, ended, living = EngineProcess.__init__, EngineProcess._ended, []

    def start_and_note(self, info, watchdog):
        start(self, info, watchdog)
        living.append(self)

    def end_all(self):
        for other in living:
            other._process.kill()
        living.clear()
        return ended(self)

    patch.setattr(EngineProcess, "__init__", start_and_note)
    patch.setattr(EngineProcess, "_ended", end_all)


@mutant(kills="iso.again")
def the_next_load_fails(patch: Patch) -> None:
    """After a crash a new instance cannot load the first model that it is given."""
    load, ended, crashed = IsolatedBackend.load_model, EngineProcess._ended, []

    def note(self):
        how = ended(self)
        if "SIGABRT" in (how or ""):
            crashed.append(self)
        return how

    def load_unless_crashed(self, path, *rest):
        if crashed:
            crashed.clear()
            raise ModelLoadError(path, "the engine crashed before")
        return load(self, path, *rest)

    patch.setattr(EngineProcess, "_ended", note)
    patch.setattr(IsolatedBackend, "load_model", load_unless_crashed)


@mutant(kills="iso.replay")
def forgets_what_was_evaluated(patch: Patch) -> None:
    """The child that takes over is told nothing of what the sequences held."""
    patch.setattr(History, "steps", lambda self, batch_size: iter(()))


@mutant(kills="iso.hang")
def has_no_watchdog(patch: Patch) -> None:
    """A call waits for its reply for ever."""
    start = Lane.__init__

    def patient(self, connection, backend, give_up, watchdog):
        start(self, connection, backend, give_up, None)

    patch.setattr(Lane, "__init__", patient)


@mutant(kills="iso.untrusted")
def takes_any_reply(patch: Patch) -> None:
    """Nobody looks whether a reply is to the call that runs."""
    patch.setattr(lane, "_same", lambda number, expected: None)


@mutant(kills="iso.untrusted")
def believes_any_length(patch: Patch) -> None:
    """A reply may be as long as it says."""
    receive = wire.receive

    def receive_all(connection, limit):
        return receive(connection, sys.maxsize)

    patch.setattr(wire, "receive", receive_all)


@mutant(kills="iso.dispose-ends")
def leaves_the_child(patch: Patch) -> None:
    """A child is left to the end of the program."""
    left = []
    patch.setattr(IsolatedBackend, "close", lambda self: left.append(self))


@mutant(kills="iso.no-orphan")
def starts_what_does_not_end(patch: Patch) -> None:
    """The child does not notice that its parent is gone."""
    if sys.argv[0] != "-c":  # only in the program that is to be killed
        return
    start = subprocess.Popen

    def endless(command, **options):
        command = [sys.executable, "-P", "-c", ENDLESS_CHILD, *command[-2:]]
        return start(command, **options)

    patch.setattr(subprocess, "Popen", endless)
