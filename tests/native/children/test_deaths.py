"""An engine that dies takes nobody with it, and everybody learns how it died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest

import llmcore
from llmcore.errors import BackendCrashedError, BackendUnavailableError, BrokenError

from .conftest import WAIT, Engine, llama_of, pid_of

BAD = [ord("!")]

DEATHS = {
    "segfault": "was killed by SIGSEGV",
    "abort": "was killed by SIGABRT",
    "leave": "ended with exit code 7",
}

Make = Callable[..., llmcore.Sequence]


@pytest.mark.parametrize(("factory", "how"), DEATHS.items())
def test_crash(sequence: Make, factory: str, how: str) -> None:
    """A crash raises an error that says how the engine died."""
    with pytest.raises(BackendCrashedError, match=f"the null engine {how}"):
        _ = sequence(factory).generate(BAD).result


def test_kill(sequence: Make) -> None:
    """A child that somebody killed is told from one that crashed."""
    subject = sequence()
    os.kill(pid_of(subject), signal.SIGKILL)

    with pytest.raises(BackendCrashedError, match="SIGKILL, perhaps by the system"):
        subject.evaluate([65])


def test_hang(sequence: Make) -> None:
    """A call without a sign of life ends when the watchdog barks."""
    subject = sequence("hang", watchdog=0.5)

    with pytest.raises(BackendCrashedError, match=r"no answer to 'decode' for 0\.5 s"):
        subject.evaluate(BAD)


def test_hang_with_the_lock(sequence: Make) -> None:
    """It ends so too when native code lets no Python run in the child."""
    subject = sequence("hang_with_the_lock", watchdog=0.5)

    with pytest.raises(BackendCrashedError, match="and was killed"):
        subject.evaluate(BAD)


def test_broken(sequence: Make) -> None:
    """All that lives on a dead engine is broken, and says why."""
    subject = sequence("segfault")
    with pytest.raises(BackendCrashedError):
        subject.evaluate(BAD)

    with pytest.raises(BrokenError, match="SIGSEGV"):
        subject.context.model.tokenize("a")


def test_neighbour(sequence: Make) -> None:
    """An engine in another child goes on."""
    doomed, other = sequence("segfault"), sequence()
    with pytest.raises(BackendCrashedError):
        doomed.evaluate(BAD)

    assert other.generate([65], max_tokens=3).result.tokens


def test_dispose(sequence: Make) -> None:
    """What is broken can be disposed without an error."""
    subject = sequence("segfault")
    llama = llama_of(subject)
    with pytest.raises(BackendCrashedError):
        subject.evaluate(BAD)

    llama.dispose()

    assert llama.disposed


def test_no_zombie(sequence: Make) -> None:
    """A child that died is waited for at once."""
    subject = sequence("segfault")
    pid = pid_of(subject)
    with pytest.raises(BackendCrashedError):
        subject.evaluate(BAD)

    assert not psutil.pid_exists(pid)


def test_last_words(sequence: Make) -> None:
    """The error has the last lines that the child said, and not all of them."""
    subject = sequence("talk_and_die")

    with pytest.raises(BackendCrashedError) as caught:
        subject.evaluate(BAD)

    text = str(caught.value)
    assert "\n  the cause, on stderr  [1m\n" in text
    assert "line 100\n" not in text


def test_python_stack(sequence: Make) -> None:
    """The last lines of a crash show where Python was."""
    with pytest.raises(BackendCrashedError, match="Fatal Python error: Segmentation"):
        sequence("segfault").evaluate(BAD)


def test_birth(engine: Engine) -> None:
    """An engine that dies while it is created is an error of its creation."""
    with pytest.raises(BackendCrashedError, match="SIGABRT"):
        engine("die_at_birth")


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("raise_at_birth", "OSError: no such device"),
        ("no_backend", "not a llmcore.spi.Backend"),
        ("missing", "no attribute 'missing'"),
    ],
)
def test_unavailable(engine: Engine, factory: str, reason: str) -> None:
    """A factory that fails in the child makes the backend unavailable."""
    with pytest.raises(BackendUnavailableError, match=reason):
        engine(factory)


def test_failed_birth_leaves_nothing(engine: Engine) -> None:
    """A child whose engine cannot be created is gone, and all that led to it."""
    me = psutil.Process()
    before = me.num_fds()
    with pytest.raises(BackendUnavailableError):
        engine("raise_at_birth")

    assert me.children() == []
    assert me.num_fds() == before


def test_wait_for_a_stuck_disposal(sequence: Make) -> None:
    """The watchdog also ends a disposal that waits for a hanging call."""
    subject = sequence("hang", watchdog=0.5)
    stream = subject.generate(BAD)

    subject.context.dispose(inflight="wait", timeout=WAIT)

    with pytest.raises((BackendCrashedError, llmcore.errors.DisposedError)):
        _ = stream.result
