from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from llmcore.errors import DisposeError, DisposeTimeoutError
from llmcore.lifecycle import (
    Resource,
    Scope,
    break_all,
    collect_forgotten,
    reaper,
)
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.tracking import report
from llmcore.lifecycle.tree import NODES

from .kit import (
    Gate,
    Ledger,
    eventually,
    run_in_thread,
    until_freed,
    used_elsewhere,
    waiting,
)


@contextmanager
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def recorded() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of a block, the reaper's too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
        collect_forgotten()


class TestDropped:
    def test_by_count(self, ledger: Ledger) -> None:
        """A dropped resource is freed without the collector: it is in no cycle."""
        with no_collector(), recorded():
            ledger.make("model", keep=False)

        assert ledger.freed == ["model"]

    def test_warning(self, ledger: Ledger) -> None:
        """The warning names the resource and the line that created it."""
        with recorded() as caught:
            resource = Resource("model", name="tiny")
            label = resource._node.label
            del resource

        [warning] = caught
        line = TestDropped.test_warning.__code__.co_firstlineno + 3
        assert warning.category is ResourceWarning
        assert str(warning.message).startswith(f"{label} was never disposed")
        assert (warning.filename, warning.lineno) == (__file__, line)

    def test_chain(self, ledger: Ledger) -> None:
        """A dropped chain goes child first, and each is named."""
        with recorded() as caught:
            context = ledger.make("context", ledger.make("model", keep=False))
            ledger.kept.clear()
            del context

        assert ledger.freed == ["context", "model"]
        assert len(caught) == 2

    def test_child_keeps_parent(self, ledger: Ledger) -> None:
        """A parent that nobody holds lives as long as its child."""
        with recorded() as caught:
            context = ledger.make("context", ledger.make("model", keep=False))
            gc.collect()
            collect_forgotten()
            assert not caught
            assert not context.disposed
            context._parent.dispose()  # type: ignore[union-attr]

    def test_owned(self, ledger: Ledger) -> None:
        """A dropped owner takes along what it owns; only the owner is warned of."""
        with recorded() as caught:
            scope = Scope()
            scope.own(ledger.make("model", keep=False))
            del scope

        assert ledger.freed == ["model"]
        assert ["scope" in str(w.message) for w in caught] == [True]

    def test_cycle(self, ledger: Ledger) -> None:
        """Resources in a reference cycle are freed by the collector, child first."""
        with recorded() as caught:
            model = ledger.make("model", keep=False)
            model.context = ledger.make(  # type: ignore[attr-defined]
                "context", model, keep=False
            )
            del model
            gc.collect()

        assert ledger.freed == ["context", "model"]
        assert len(caught) == 2

    def test_in_thread(self, ledger: Ledger) -> None:
        """What a thread forgets is freed, too."""
        with recorded() as caught:

            def work() -> None:
                ledger.make("model", keep=False)

            run_in_thread(work).result()

        assert ledger.freed == ["model"]
        assert len(caught) == 1

    def test_by_itself(self, ledger: Ledger) -> None:
        """Nobody has to ask for it."""
        with recorded():
            ledger.make("model", keep=False)
            eventually(lambda: ledger.freed == ["model"])

    def test_broken(self, ledger: Ledger) -> None:
        """A broken resource that is dropped was never disposed either."""
        with recorded() as caught:
            model = ledger.make("model", keep=False)
            break_all(model._node, "gone")
            del model

        assert ledger.freed == ["model"]
        assert len(caught) == 1


class TestDisposedThenDropped:
    def test_once(self, ledger: Ledger) -> None:
        """What was disposed is not freed again, and nobody warns."""
        with recorded() as caught:
            ledger.make("model", keep=False).dispose()

        assert ledger.freed == ["model"]
        assert not caught

    def test_while_disposing(self, ledger: Ledger) -> None:
        """What is dropped while its disposal still waits was disposed: no warning."""
        model = ledger.make("model", keep=False)
        node = model._node
        with recorded() as caught:
            with used_elsewhere(ledger, model):
                with pytest.raises(DisposeTimeoutError):
                    model.dispose(timeout=0)
                del model
            eventually(lambda: node.number not in NODES)

        assert ledger.freed == ["model"]
        assert not caught

    def test_from_its_own_use(self, ledger: Ledger) -> None:
        """What disposes itself from inside a use and is dropped: no warning."""
        model = ledger.make("model", keep=False)
        node = model._node
        with recorded() as caught:
            with ledger.use(model):
                model.dispose()
                del model
            eventually(lambda: node.number not in NODES)

        assert not caught


class TestAnywhere:
    def test_in_a_section(self, ledger: Ledger) -> None:
        """What is collected in the middle of a section of the kernel is freed later."""
        model = ledger.make("model", keep=False)
        with recorded(), TREE:
            del model
            assert ledger.freed == []

        assert ledger.freed == ["model"]

    def test_del_in_a_section(self, ledger: Ledger) -> None:
        """A ``__del__`` that disposes in the middle of a section frees later."""
        locked: list[bool] = []
        model = ledger.make("model", during_free=lambda: locked.append(TREE.mine))

        class Facade:
            def __init__(self) -> None:
                self.myself = self

            def __del__(self) -> None:
                model.dispose()

        with no_collector():
            Facade()
            with TREE:
                gc.collect()
                assert ledger.freed == []

        until_freed(model)
        assert locked == [False]

    def test_in_a_use(self, ledger: Ledger) -> None:
        """Inside a use, freeing the forgotten is left to the reaper."""
        with recorded(), ledger.make("other") as other, other._use():
            ledger.make("model", keep=False)
            collect_forgotten()
            eventually(lambda: ledger.freed == ["model"])


class TestCost:
    def test_table_empty(self) -> None:
        """Ten thousand children that come and go leave no trace in their parent."""
        with Resource("model") as model, recorded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = len(NODES)
            for _ in range(10_000):
                Resource("context", parent=model)
            collect_forgotten()

            assert not model._node.dependants
            assert len(NODES) == before

    def test_size(self) -> None:
        """A live resource costs less than two kilobytes."""
        with Resource("model") as model:
            tracemalloc.start()
            try:
                many = [Resource("context", parent=model) for _ in range(1000)]
                size, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            model.dispose()

        assert len(many) == 1000
        assert size / 1000 < 2048


class TestErrors:
    def test_warning_is_error(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """Where warnings are errors, this one is shown, since nobody can catch it."""
        ledger.make("model", keep=False)
        collect_forgotten()

        assert ledger.freed == ["model"]
        assert [type(shown.exc_value) for shown in unraisable] == [ResourceWarning]

    def test_shown_by_python(
        self, ledger: Ledger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is shown goes to stderr the way Python does it, with its traceback."""
        hook, sys.unraisablehook = sys.unraisablehook, sys.__unraisablehook__
        try:
            report(ValueError("nobody can catch this"))
        finally:
            sys.unraisablehook = hook

        shown = capsys.readouterr().err
        assert shown.startswith("Exception ignored in")
        assert shown.endswith("ValueError: nobody can catch this\n")

    def test_failing_teardown(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """A teardown that raises in the reaper is shown, and the reaper goes on."""
        with recorded():
            ledger.make("failing", keep=False, fail=ValueError())
            eventually(lambda: unraisable)
            ledger.make("model", keep=False)
            eventually(lambda: ledger.freed == ["failing", "model"])

        assert [type(shown.exc_value) for shown in unraisable] == [DisposeError]

    def test_reaper_survives(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """Not even a ``SystemExit`` in a teardown ends the reaper."""
        with recorded():
            ledger.make("failing", keep=False, fail=SystemExit())
            eventually(lambda: unraisable)
            ledger.make("model", keep=False)
            eventually(lambda: ledger.freed == ["failing", "model"])

    def test_failing_showwarning(
        self,
        ledger: Ledger,
        unraisable: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nor does a broken way of showing warnings."""

        def fail(*_: object, **__: object) -> None:
            raise OSError("no log")

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", fail)
            ledger.make("model", keep=False)
            eventually(lambda: unraisable)

        assert isinstance(unraisable[0].exc_value, OSError)


class TestCollectForgotten:
    def test_waits_for_reaper(self, ledger: Ledger) -> None:
        """It returns only when what the reaper is at is freed, too."""
        gate = Gate()
        with recorded():
            ledger.make("model", keep=False, during_free=gate.cross)
            gate.reached()
            task = run_in_thread(collect_forgotten)
            eventually(waiting)
            assert task.running
            gate.open()
            task.result()

    def test_from_a_teardown(self, ledger: Ledger) -> None:
        """A teardown of a forgotten resource may call it."""
        with recorded(), pytest.MonkeyPatch.context() as patch:
            # Let this thread find it, not the reaper.
            patch.setattr(reaper._reaper, "wake", _Nowhere())
            ledger.make("model", keep=False, during_free=collect_forgotten)
            run_in_thread(collect_forgotten).result()

        assert ledger.freed == ["model"]

    def test_many_at_once(self, ledger: Ledger) -> None:
        """Threads that all forget and all collect free everything once."""
        start = threading.Barrier(4)

        def work(thread: int) -> None:
            start.wait(20)
            for i in range(50):
                ledger.make(f"{thread}.{i}", keep=False)
                if i % 10 == 0:
                    collect_forgotten()

        with recorded() as caught:
            tasks = [run_in_thread(partial(work, i)) for i in range(4)]
            for task in tasks:
                task.result()
            collect_forgotten()

        assert len(ledger.freed) == len(caught) == 200


class _Nowhere:
    def put(self, _: None) -> None:
        """The reaper does not hear of it."""
