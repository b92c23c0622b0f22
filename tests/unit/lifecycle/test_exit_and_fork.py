from __future__ import annotations

import os
import signal
import textwrap

import pytest

from .kit import run_program

PROLOGUE = """
import os, signal, sys, threading
from llmcore.errors import DisposedError, DisposeTimeoutError, ForkError
from llmcore.lifecycle import Exclusion, Operation, Resource, Scope, reaper
from llmcore.lifecycle.tree import NODES

def make(kind, parent=None, **options):
    def teardown(handle):
        print(kind, flush=True)
    return Resource(kind, parent=parent, handle=kind, teardown=teardown, **options)

model = make("model")
context = make("context", model)
sequence = make("sequence", context)
"""
CHILDREN_FIRST = ["sequence", "context", "model"]


def outcome(body: str) -> tuple[int, list[str], str]:
    """Return code, lines of stdout, and stderr of a program."""
    done = run_program(PROLOGUE + textwrap.dedent(body))
    return done.returncode, done.stdout.split(), done.stderr


class TestExit:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ("", 0),
            ("sys.exit(3)", 3),
            ("with model._use(): sys.exit(3)", 3),
            ("threading.Thread(target=sys.exit).start()", 0),
            ("sys.modules.pop('llmcore.lifecycle')", 0),
        ],
        ids=["end", "exit", "in-a-use", "in-a-thread", "unloaded"],
    )
    def test_globals(self, body: str, code: int) -> None:
        """What lives at the end goes children first, and nothing is said."""
        returned, lines, errors = outcome(body)

        assert (returned, errors) == (code, "")
        assert lines == CHILDREN_FIRST

    def test_cycle(self) -> None:
        """Nor is anything said of what only a reference cycle keeps."""
        code, lines, errors = outcome(
            "model.myself = [model, sequence]; del model, context, sequence"
        )

        assert (code, errors, lines) == (0, "", CHILDREN_FIRST)

    def test_unhandled(self) -> None:
        """An unhandled exception shows its own traceback and no more."""
        code, lines, errors = outcome("1 / 0")

        assert code == 1
        assert lines == CHILDREN_FIRST
        assert errors.count("Traceback") == 1
        assert errors.endswith("ZeroDivisionError: division by zero\n")

    def test_ctrl_c(self) -> None:
        """So does a Ctrl-C."""
        code, lines, errors = outcome("signal.raise_signal(signal.SIGINT)")

        assert code in (-signal.SIGINT, 130)
        assert lines == CHILDREN_FIRST
        assert errors.endswith("KeyboardInterrupt\n")
        assert errors.count("Traceback") == 1

    def test_newest_root_first(self) -> None:
        """Of independent resources the newest goes first."""
        _, lines, _ = outcome("late = make('late')")

        assert lines == ["late", *CHILDREN_FIRST]

    def test_daemon_inside(self) -> None:
        """Exit interrupts a use in a daemon thread, and waits for its end."""
        code, lines, errors = outcome(
            """
            inside, stop = threading.Event(), threading.Event()
            busy = make("busy", sequence, interrupt=stop.set)
            def work():
                with busy._use():
                    inside.set()
                    stop.wait()
                    print("left", flush=True)
            threading.Thread(target=work, daemon=True).start()
            inside.wait()
            """
        )

        assert (code, errors) == (0, "")
        assert lines == ["left", "busy", *CHILDREN_FIRST]

    def test_operation(self) -> None:
        """Exit cancels work that runs in a daemon thread."""
        code, lines, errors = outcome(
            "operation = Operation(context._node, lambda: print('cancel', flush=True))"
        )

        assert (code, errors) == (0, "")
        assert lines == ["cancel", *CHILDREN_FIRST]

    def test_never_ends(self) -> None:
        """A use that never ends is leaked at the deadline; all else is freed."""
        code, lines, errors = outcome(
            """
            reaper.EXIT_DEADLINE = 0.1
            inside = threading.Event()
            def work():
                with context._use():
                    inside.set()
                    threading.Event().wait()
            threading.Thread(target=work, daemon=True).start()
            inside.wait()
            late = make("late")
            """
        )

        assert (code, errors) == (0, "")
        assert lines == ["late", "sequence"]

    def test_failing_teardown(self) -> None:
        """A teardown that raises at exit says nothing, and all the rest is freed."""
        code, lines, errors = outcome(
            """
            def fail(handle):
                raise ValueError
            failing = Resource("failing", parent=sequence, teardown=fail)
            """
        )

        assert (code, errors, lines) == (0, "", CHILDREN_FIRST)

    def test_owned_by_scope(self) -> None:
        """A scope at the end takes along what it owns."""
        _, lines, errors = outcome("scope = Scope(); scope.own(model)")

        assert (lines, errors) == (CHILDREN_FIRST, "")

    def test_dispose_in_atexit(self) -> None:
        """A program's own exit hook may still use and dispose everything."""
        code, lines, errors = outcome(
            """
            import atexit
            def last():
                with sequence._use(): pass
                context.dispose()
            atexit.register(last)
            """
        )

        assert (code, errors, lines) == (0, "", CHILDREN_FIRST)

    def test_disposed_in_background(self) -> None:
        """A disposal that is on its way in the background is waited for."""
        code, lines, errors = outcome("with sequence._use(): model.dispose()")

        assert (code, errors, lines) == (0, "", CHILDREN_FIRST)

    def test_just_forgotten(self) -> None:
        """What was forgotten a moment before the end is freed once."""
        _, lines, _ = outcome("make('late')")

        assert sorted(lines) == sorted(["late", *CHILDREN_FIRST])


FORK = """
def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
class TestFork:
    def test_refused(self) -> None:
        """In the child every inherited object raises, and names itself."""
        code, lines, errors = outcome(
            FORK
            + """
def own():
    with Scope() as scope:
        scope.own(model)

def work():
    for use in (model._check, model._use().__enter__, model.lease, model.__enter__,
                lambda: make("late", model), lambda: model.move_to(None),
                own, lambda: Operation(model._node)):
        try:
            use()
        except ForkError as error:
            assert "model#1 was created before os.fork()" in str(error)
        else:
            print("allowed")
    assert "FORKED" in repr(model)
in_child(work)
"""
        )

        assert (code, errors) == (0, "")
        assert lines == ["late", "child", "0", *CHILDREN_FIRST]

    def test_not_torn_down(self) -> None:
        """The child tears nothing down: not by dispose, drop, ``with`` nor exit."""
        code, lines, errors = outcome(
            FORK
            + """
def work():
    global sequence
    import gc
    context.dispose()
    model.dispose_if_unused()
    sequence = None
    gc.collect()
    with_model.__exit__(None, None, None)
with_model = model.__enter__()
in_child(work)
"""
        )

        assert (code, errors) == (0, "")
        assert lines == ["child", "0", *CHILDREN_FIRST]

    def test_parent_works(self) -> None:
        """The parent works on after its child ended."""
        code, lines, errors = outcome(
            FORK
            + """
in_child(lambda: None)
with sequence._use() as handle:
    print(handle)
"""
        )

        assert (code, errors) == (0, "")
        assert lines == ["child", "0", "sequence", *CHILDREN_FIRST]

    def test_own(self) -> None:
        """The child can create its own, which are freed at its exit, or forgotten."""
        code, lines, errors = outcome(
            FORK
            + """
def work():
    global mine, yours
    import warnings
    from llmcore.lifecycle import collect_forgotten
    warnings.simplefilter("ignore")
    mine = make("mine")
    yours = make("yours", mine)
    with yours._use() as handle:
        print("used", handle)
    make("forgotten")
    collect_forgotten()
in_child(work)
"""
        )

        assert (code, errors) == (0, "")
        own = ["used", "yours", "forgotten", "yours", "mine"]
        assert lines == [*own, "child", "0", *CHILDREN_FIRST]

    @pytest.mark.parametrize("exclusive", ["None", "Exclusion()"])
    def test_used_elsewhere(self, exclusive: str) -> None:
        """A use in another thread of the parent does not block the child."""
        code, lines, errors = outcome(
            FORK
            + f"""
busy = make("busy", exclusion={exclusive})
inside, stop = threading.Event(), threading.Event()
def use():
    with busy._use():
        inside.set()
        stop.wait()
user = threading.Thread(target=use)
user.start()
inside.wait()
def work():
    signal.alarm(20)
    busy.dispose()
    busy._use().__enter__()
in_child(work)
stop.set()
user.join()
"""
        )

        assert (code, errors) == (0, "")
        assert lines[:2] == ["ForkError", "busy#4"]
        assert lines[-6:] == ["child", "0", "busy", *CHILDREN_FIRST]

    def test_inside(self) -> None:
        """A fork from inside a use leaves it in the child without a word."""
        code, lines, errors = outcome(
            FORK
            + """
with model._use():
    in_child(lambda: None)
"""
        )

        assert (code, errors) == (0, "")
        assert lines == ["child", "0", *CHILDREN_FIRST]

    def test_while_disposing(self) -> None:
        """A fork in the middle of a disposal leaves the child nothing to wait for."""
        code, lines, errors = outcome(
            FORK
            + """
at, stop = threading.Event(), threading.Event()
slow = Resource("slow", parent=model, teardown=lambda _: (at.set(), stop.wait()))
thread = threading.Thread(target=model.dispose)
thread.start()
at.wait()
def work():
    signal.alarm(20)
    model.dispose()
    slow._check()
in_child(work)
stop.set()
thread.join()
"""
        )

        assert (code, errors) == (0, "")
        assert lines[0] == "ForkError"
        assert lines[-5:] == ["child", "0", *CHILDREN_FIRST]
