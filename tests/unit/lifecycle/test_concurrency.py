from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from llmcore.errors import BusyError, DisposedError, DisposeError, DisposeTimeoutError
from llmcore.lifecycle import Exclusion, Lease, Operation, Resource

from .kit import (
    PATIENCE,
    Gate,
    Ledger,
    eventually,
    run_in_thread,
    struck,
    until_disposed,
    until_freed,
    used_elsewhere,
    waiting,
)


def disposal_threads() -> int:
    return sum(t.name == "llmcore-dispose" for t in threading.enumerate())


class TestWaiting:
    def test_for_a_use(self, ledger: Ledger) -> None:
        """Disposing waits for a use in another thread."""
        model = ledger.make("model")
        with used_elsewhere(ledger, model) as gate:
            task = run_in_thread(model.dispose)
            until_disposed(model)
            eventually(waiting)

            assert ledger.freed == []
            gate.open()
            task.result()

        assert ledger.freed == ["model"]

    def test_for_a_use_below(self, ledger: Ledger) -> None:
        """Nothing above a used child is freed before that use ends."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with used_elsewhere(ledger, context) as gate:
            task = run_in_thread(model.dispose)
            until_disposed(model, context)
            eventually(waiting)

            assert ledger.freed == []
            gate.open()
            task.result()

        assert ledger.freed == ["context", "model"]

    def test_new_uses_refused(self, ledger: Ledger) -> None:
        """While a disposal waits, everything new is refused."""
        model = ledger.make("model")
        with used_elsewhere(ledger, model) as gate:
            task = run_in_thread(model.dispose)
            until_disposed(model)

            with pytest.raises(DisposedError):
                model._use().__enter__()
            with pytest.raises(DisposedError):
                Operation(model._node)

            gate.open()
            task.result()

    def test_all_disposers(self, ledger: Ledger) -> None:
        """Every concurrent disposer returns only when the memory is back."""
        gate = Gate()
        model = ledger.make("model", during_free=gate.cross)
        tasks = [run_in_thread(model.dispose) for _ in range(4)]
        gate.reached()
        eventually(lambda: waiting() == 3)

        assert all(task.running for task in tasks)
        gate.open()
        for task in tasks:
            task.result()
        assert ledger.freed == ["model"]

    def test_parent_disposer(self, ledger: Ledger) -> None:
        """A disposer of the parent waits for the child that another one frees."""
        gate = Gate()
        model = ledger.make("model")
        child = ledger.make("child", model, during_free=gate.cross)
        first = run_in_thread(child.dispose)
        gate.reached()
        second = run_in_thread(model.dispose)
        eventually(waiting)

        assert ledger.freed == ["child"]  # it is in there
        assert model._node.handle is not None
        gate.open()
        first.result()
        second.result()
        assert ledger.freed == ["child", "model"]

    def test_only_the_one_who_frees_hears(self, ledger: Ledger) -> None:
        """A teardown's error is raised once, to the disposer that ran it."""
        gate = Gate()
        model = ledger.make("model", during_free=gate.cross, fail=ValueError())
        first = run_in_thread(model.dispose)
        gate.reached()
        second = run_in_thread(model.dispose)
        eventually(waiting)
        gate.open()

        with pytest.raises(DisposeError):
            first.result()
        second.result()

    def test_created_meanwhile(self, ledger: Ledger) -> None:
        """A child made while its parent is being disposed is torn down at once."""
        gate = Gate()
        model = ledger.make("model")
        child = ledger.make("child", model, during_free=gate.cross)
        task = run_in_thread(model.dispose)
        gate.reached()

        with pytest.raises(DisposedError):
            ledger.make("late", model)

        assert ledger.freed == ["child", "late"]
        gate.open()
        task.result()
        assert child.disposed

    def test_many_disposers(self, ledger: Ledger) -> None:
        """Disposers of every node of a tree at once free each node once, in order."""
        for round in range(20):
            top = ledger.make(f"top{round}")
            middle = [ledger.make(f"middle{round}.{i}", top) for i in range(2)]
            leaves = [ledger.make(f"leaf{round}.{i}", middle[i % 2]) for i in range(4)]
            start = threading.Barrier(7)

            def work(start: threading.Barrier, resource: Resource) -> None:
                start.wait(PATIENCE)
                resource.dispose()

            tasks = [
                run_in_thread(partial(work, start, r)) for r in [top, *middle, *leaves]
            ]
            for task in tasks:
                task.result()
            assert len(ledger.freed) == 7 * (round + 1)


class TestTimeout:
    def test_names_thread(self, ledger: Ledger) -> None:
        """A disposal that gives up names the object and the thread that is inside."""
        model = ledger.make("model")
        with used_elsewhere(ledger, model, "decoder"):
            with pytest.raises(DisposeTimeoutError, match=r"model#.*'decoder'"):
                model.dispose(timeout=0)

            assert model.disposed
            assert ledger.freed == []
        until_freed(model)

    def test_freed_later(self, ledger: Ledger) -> None:
        """What was given up is freed by itself, all of it, when the use ends."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with (
            used_elsewhere(ledger, context),
            pytest.raises(DisposeTimeoutError, match="context"),
        ):
            model.dispose(timeout=0)

        until_freed(model, context)
        assert ledger.freed == ["context", "model"]

    def test_again(self, ledger: Ledger) -> None:
        """Disposing again waits again."""
        model = ledger.make("model")
        with used_elsewhere(ledger, model) as gate:
            with pytest.raises(DisposeTimeoutError):
                model.dispose(timeout=0)
            task = run_in_thread(model.dispose)
            eventually(lambda: waiting() == 2)
            gate.open()
            task.result()
            assert ledger.freed == ["model"]

    def test_enough(self, ledger: Ledger) -> None:
        """Without anybody inside even no time is enough."""
        model = ledger.make("model")

        model.dispose(timeout=0)

        assert ledger.freed == ["model"]

    def test_polling(self, ledger: Ledger) -> None:
        """Polling with a timeout leaves one thread behind, not one a poll."""
        model = ledger.make("model")
        with used_elsewhere(ledger, model):
            for _ in range(5):
                with pytest.raises(DisposeTimeoutError):
                    model.dispose(timeout=0)
            threads = disposal_threads()
        until_freed(model)

        assert threads == 1

    def test_error_before(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """A teardown that raised before the timeout is not forgotten."""
        model = ledger.make("model")
        used = ledger.make("used", model)
        ledger.make("failing", model, fail=ValueError("lost"))
        with used_elsewhere(ledger, used), pytest.raises(DisposeTimeoutError):
            model.dispose(timeout=0)
        until_freed(model)
        for thread in threading.enumerate():
            if thread.name == "llmcore-dispose":
                thread.join(PATIENCE)

        assert [type(shown.exc_value) for shown in unraisable] == [DisposeError]


class TestFromInside:
    def test_returns(self, ledger: Ledger) -> None:
        """Disposing from inside a use returns at once and frees after that use."""
        model = ledger.make("model")
        with ledger.use(model):
            model.dispose()
            assert model.disposed
            assert ledger.freed == []

        until_freed(model)
        assert ledger.freed == ["model"]

    def test_again_and_again(self, ledger: Ledger) -> None:
        """Disposing many times from inside one use waits in one thread, not in many."""
        model = ledger.make("model")
        with ledger.use(model):
            for _ in range(5):
                model.dispose()
            threads = disposal_threads()
        until_freed(model)

        assert threads == 1

    def test_cancels_first(self, ledger: Ledger) -> None:
        """By the time it returns, the running work is cancelled."""
        told: list[str] = []
        model = ledger.make("model", interrupt=lambda: told.append("interrupt"))
        with ledger.use(model), Operation(model._node, lambda: told.append("cancel")):
            model.dispose()
            assert told == ["cancel", "interrupt"]

        until_freed(model)

    def test_from_a_child(self, ledger: Ledger) -> None:
        """Disposing the parent from inside a use of the child works as well."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with ledger.use(context):
            model.dispose()
            assert context.disposed

        until_freed(model)

    def test_crossed(self, ledger: Ledger) -> None:
        """Two threads, each inside one, may dispose the other's."""
        a, b = ledger.make("a"), ledger.make("b")
        both_inside = threading.Barrier(2)

        def work(mine: Resource, other: Resource) -> None:
            with ledger.use(mine):
                both_inside.wait(PATIENCE)
                other.dispose()

        tasks = [run_in_thread(lambda: work(a, b)), run_in_thread(lambda: work(b, a))]
        for task in tasks:
            task.result()

        until_freed(a, b)

    def test_crossed_exclusive(self, ledger: Ledger) -> None:
        """Two threads, each exclusively inside one, get errors and no deadlock."""
        a = ledger.make("a", exclusion=Exclusion())
        b = ledger.make("b", exclusion=Exclusion())
        both_inside, both_tried = threading.Barrier(2), threading.Barrier(2)

        def work(mine: Resource, other: Resource) -> None:
            with ledger.use(mine):
                both_inside.wait(PATIENCE)
                with pytest.raises(BusyError):
                    other._use().__enter__()
                both_tried.wait(PATIENCE)

        tasks = [run_in_thread(lambda: work(a, b)), run_in_thread(lambda: work(b, a))]
        for task in tasks:
            task.result()
        a.dispose()
        b.dispose()


class TestExclusion:
    def test_never_overlaps(self, ledger: Ledger) -> None:
        """Eight threads that use one exclusive resource never meet inside."""
        model = ledger.make("model", exclusion=Exclusion())
        start = threading.Barrier(8)

        def work() -> None:
            start.wait(PATIENCE)
            for _ in range(50):
                with ledger.use(model):
                    pass

        tasks = [run_in_thread(work) for _ in range(8)]
        for task in tasks:
            task.result()
        model.dispose()

    def test_waiting_ends(self, ledger: Ledger) -> None:
        """Who waits for exclusion when the resource is disposed gets that error."""
        model = ledger.make("model", exclusion=Exclusion())
        with used_elsewhere(ledger, model) as gate:
            entered = Gate()
            entered.open()

            def work() -> None:
                entered.cross()
                model._use().__enter__()

            waiter = run_in_thread(work)
            entered.reached()
            disposer = run_in_thread(model.dispose)
            until_disposed(model)
            gate.open()
            with pytest.raises(DisposedError):
                waiter.result()
            disposer.result()

        assert not model._node.users

    def test_lease_released_twice_at_once(self, ledger: Ledger) -> None:
        """A lease released again in the middle of its release still ends once."""
        with ledger.make("model") as model:
            for at in range(12):
                lease: Lease = model.lease()
                with struck(at, lease.release):
                    lease.release()

                assert model._node.holds == 0
