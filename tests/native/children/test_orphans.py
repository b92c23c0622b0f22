"""Nothing is left behind, whoever dies, and however."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llmcore.values import ContextParams, ModelParams

from .conftest import WAIT, Engine, Listener, llama_of

PROGRAM = """\
import sys, threading
sys.path.insert(0, {folder!r})
import llmcore
from llmcore.backends.null import INFO
from llmcore.isolation import isolated
from llmcore.values import evolve

backend = isolated(evolve(INFO, factory="isolation_engines:{factory}"))
sequence = (
    llmcore.get_llama(backend).load_model().create_context(context_size=64)
    .get_sequence()
)
"""
WORK = "threading.Thread(target=sequence.evaluate, args=([33],), daemon=True).start()\n"
SHOW = "print(backend.pid, flush=True)\n"


def start(factory: str, *lines: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A program with an isolated engine, and the child of that."""
    source = PROGRAM.format(folder=str(Path(__file__).parent), factory=factory)
    program = subprocess.Popen(
        [sys.executable, "-c", source + "".join(lines)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    return program, psutil.Process(int(program.stdout.readline()))


def end(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.communicate()


STAY = "sys.stdin.read()\n"
FORK = "import os\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    " + STAY


@pytest.mark.parametrize(
    ("factory", "work"),
    [("talk", ""), ("hang", WORK), ("hang_with_the_lock", WORK)],
    ids=["idle", "hanging", "hanging-with-the-lock"],
)
def test_killed_parent(factory: str, work: str) -> None:
    """The child ends with its parent, even after kill -9, whatever it does."""
    if factory == "hang_with_the_lock" and sys.platform != "linux":
        pytest.skip("needs a signal at the end of a pipe")
    inside = (
        "import logging\ninside = threading.Event()\n"
        "log = logging.getLogger('llmcore.isolation')\nlog.setLevel(10)\n"
        "log.addFilter(lambda record: inside.set() or True)\n"
    )
    wait = "inside.wait()\n" if factory == "hang_with_the_lock" else ""
    program, child = start(factory, inside, work, wait, SHOW, STAY)

    end(program)

    child.wait(WAIT)  # raises if it stays


def test_forked_parent() -> None:
    """It ends even if a fork of the parent lives on, with all that it had open."""
    program, child = start("talk", SHOW, FORK, STAY)
    assert program.stdout is not None
    fork = psutil.Process(int(program.stdout.readline()))

    program.kill()

    child.wait(WAIT)
    fork.kill()
    program.communicate()


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)\n", "1 / 0\n"])
def test_exit(ending: str) -> None:
    """A program that ends without disposing anything leaves no child."""
    program, child = start("talk", SHOW, ending)

    child.wait(WAIT)
    program.communicate(timeout=WAIT)


def test_close(engine: Engine) -> None:
    """Closing gives back every file, every connection and the child."""
    me = psutil.Process()
    gc.collect()
    before, shared = me.num_fds(), shared_files()
    sequence_on(engine)

    gc.collect()
    assert me.num_fds() == before
    assert me.children() == []
    assert shared_files() == shared


def test_contexts_come_and_go(engine: Engine) -> None:
    """A context that is closed leaves no open file in the child either."""
    backend = engine()
    child = psutil.Process(backend.pid)
    model = backend.load_model(None, ModelParams(), lambda share: True)
    before = child.num_fds()
    for _ in range(5):
        model.create_context(ContextParams(context_size=64)).close()

    end = time.monotonic() + WAIT
    while child.num_fds() > before:  # its threads notice a little later
        assert time.monotonic() < end
        backend.devices()


def sequence_on(engine: Engine) -> None:
    """Use an engine in all ways that open something, and dispose it."""
    import llmcore

    with llmcore.get_llama(engine(restart="replay")) as llama:
        sequence = llama.load_model().create_context(context_size=64).get_sequence()
        sequence.evaluate([65])
        assert sequence.logits.size
        os.kill(llama._node.handle.pid, 9)
        sequence.evaluate([65])
        assert sequence.logits.size


def shared_files() -> set[str]:
    """Those that have a name."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def test_dead_child_leaves_nothing(sequence: Callable[..., object]) -> None:
    """Nor does a child that dies leave memory with a name."""
    before = shared_files()
    subject = sequence("segfault")
    with pytest.raises(Exception, match="SIGSEGV"):
        subject.evaluate([33])  # type: ignore[attr-defined]

    assert shared_files() == before


def test_stuck_close(sequence: Callable[..., object], listener: Listener) -> None:
    """A child that does not answer any more is killed in the end."""
    inside = listener.expect("inside")
    subject = sequence("stuck_close")
    llama = llama_of(subject)  # type: ignore[arg-type]

    llama.dispose()

    assert inside.is_set()
    assert psutil.Process().children() == []
