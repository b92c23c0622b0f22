from __future__ import annotations

from typing import Any

import pytest

from llmcore.errors import DisposedError, DisposeTimeoutError
from llmcore.lifecycle import Operation

from .kit import (
    Gate,
    Ledger,
    eventually,
    listed,
    run_in_thread,
    until_disposed,
    until_freed,
    waiting,
)


class TestInflight:
    def test_wait_finishes(self, ledger: Ledger) -> None:
        """Waiting admits the uses of what runs, refuses others, frees at its end."""
        model = ledger.make("model")
        with Operation(model._node) as operation:
            task = run_in_thread(lambda: model.dispose(inflight="wait"))
            until_disposed(model)

            with ledger.use(model, operation):
                pass
            with pytest.raises(DisposedError), ledger.use(model):
                pass
            with pytest.raises(DisposedError):
                Operation(model._node)
            assert ledger.freed == []
        task.result()

        assert ledger.freed == ["model"]

    def test_wait_not_cancelled(self, ledger: Ledger) -> None:
        """What is waited for is not cancelled."""
        cancelled: list[int] = []
        model = ledger.make("model")
        with Operation(model._node, lambda: cancelled.append(1)):
            task = run_in_thread(lambda: model.dispose(inflight="wait"))
            eventually(waiting)
        task.result()

        assert not cancelled

    def test_wait_below(self, ledger: Ledger) -> None:
        """Work on a child that needs its parent finishes too."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with Operation(context._node) as operation:
            task = run_in_thread(lambda: model.dispose(inflight="wait"))
            until_disposed(model)
            with ledger.use(context, operation), ledger.use(model, operation):
                assert ledger.freed == []
        task.result()

    def test_cancel(self, ledger: Ledger) -> None:
        """Cancelling asks the work once, and its next use raises."""
        cancelled: list[int] = []
        model = ledger.make("model")
        with Operation(model._node, lambda: cancelled.append(1)) as operation:
            model.dispose()
            with pytest.raises(DisposedError):
                model._use(operation).__enter__()

        assert cancelled == [1]

    def test_escalation(self, ledger: Ledger) -> None:
        """A second disposer that cancels ends the patience of the first; asked once."""
        cancelled: list[int] = []
        model = ledger.make("model")
        with Operation(model._node, lambda: cancelled.append(1)) as operation:
            patient = run_in_thread(lambda: model.dispose(inflight="wait"))
            eventually(waiting)

            run_in_thread(model.dispose).result()
            patient.result()

            with pytest.raises(DisposedError):
                model._use(operation).__enter__()
        assert cancelled == [1]
        assert ledger.freed == ["model"]

    def test_escalation_from_above(self, ledger: Ledger) -> None:
        """Disposing the parent with cancel ends a patient disposal of the child."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with Operation(context._node):
            patient = run_in_thread(lambda: context.dispose(inflight="wait"))
            eventually(waiting)

            run_in_thread(model.dispose).result()
            patient.result()

    def test_wait_timeout(self, ledger: Ledger) -> None:
        """Patience may have an end, too."""
        model = ledger.make("model")
        with Operation(model._node):
            with pytest.raises(DisposeTimeoutError, match="running work"):
                model.dispose(inflight="wait", timeout=0)
            assert ledger.freed == []

        until_freed(model)

    def test_interrupted_cancel(self, ledger: Ledger) -> None:
        """After Ctrl-C in a cancel the disposal goes on in the background."""

        def strike() -> None:
            raise KeyboardInterrupt

        model = ledger.make("model")
        with Operation(model._node, strike), pytest.raises(KeyboardInterrupt):
            model.dispose()
        going_on = model._node.handed_over or not listed(model)
        model.dispose()

        assert going_on

    def test_failing_cancel(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """A cancel or an interrupt that raises is shown, and stops nothing."""

        def fail() -> None:
            raise ValueError("deaf")

        model = ledger.make("model", interrupt=fail)
        with Operation(model._node, fail):
            model.dispose()

        assert ledger.freed == ["model"]
        assert [str(shown.exc_value) for shown in unraisable] == ["deaf", "deaf"]

    def test_interrupt(self, ledger: Ledger) -> None:
        """The interrupt of a handle ends the use that a disposal waits for."""
        gate = Gate()
        model = ledger.make("model", interrupt=gate.open)

        def work() -> None:
            with ledger.use(model):
                gate.cross()

        task = run_in_thread(work)
        gate.reached()
        model.dispose()

        task.result()

    def test_interrupt_is_a_use(self, ledger: Ledger) -> None:
        """A handle is not freed while its interrupt runs."""
        gate = Gate()
        model = ledger.make("model", interrupt=gate.cross)
        first = run_in_thread(model.dispose)
        gate.reached()
        model._node.interrupt = None  # the second one does not stop at the gate
        second = run_in_thread(lambda: model.dispose(timeout=0))
        try:
            with pytest.raises(DisposeTimeoutError):
                second.result()
            assert ledger.freed == []
        finally:
            gate.open()
            first.result()

    def test_no_interrupt_after(self, ledger: Ledger) -> None:
        """A handle whose teardown began is not interrupted any more."""
        gate, told = Gate(), list[str]()
        model = ledger.make(
            "model",
            during_free=gate.cross,
            interrupt=lambda: told.append("freed" if ledger.freed else "alive"),
        )
        first = run_in_thread(model.dispose)
        gate.reached()
        second = run_in_thread(model.dispose)
        eventually(lambda: waiting() or not second.running)
        gate.open()
        first.result()
        second.result()

        assert told == ["alive"]
