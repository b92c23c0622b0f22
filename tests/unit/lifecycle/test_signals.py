from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from llmcore.errors import DisposedError
from llmcore.lifecycle import Exclusion
from llmcore.lifecycle.monitor import TREE

from .kit import (
    Ledger,
    eventually,
    listed,
    run_in_thread,
    struck,
    until_freed,
    used_elsewhere,
    waiting,
)


class TestSignals:
    def test_interrupted_drain(self, ledger: Ledger) -> None:
        """Ctrl-C during a disposal hands the rest over, and is passed on."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        with used_elsewhere(ledger, context) as gate:
            main = threading.main_thread().ident
            assert main is not None

            def strike() -> None:
                eventually(waiting)
                signal.pthread_kill(main, signal.SIGINT)

            striker = run_in_thread(strike)
            with pytest.raises(KeyboardInterrupt):
                model.dispose()
            striker.result()
            assert ledger.freed == []
            gate.open()

        until_freed(model, context)
        assert ledger.freed == ["context", "model"]

    @pytest.mark.parametrize("inflight", ["cancel", "wait"])
    def test_handler_anywhere_in_dispose(self, ledger: Ledger, inflight: Any) -> None:
        """A handler that disposes, at any line of a disposal, does no harm."""

        def scenario(at: int) -> bool:
            model = ledger.make(f"model{at}", interrupt=lambda: None)
            child = ledger.make(f"child{at}", model)
            with struck(at, model.dispose) as hit:
                child.dispose(inflight=inflight)
                model.dispose(inflight=inflight)
            until_freed(model, child)
            return hit()

        run_at_every_line(scenario)

    @pytest.mark.parametrize("exclusive", [False, True])
    def test_handler_anywhere_in_use(self, ledger: Ledger, exclusive: bool) -> None:
        """A handler that disposes, at any line of a use, neither hangs nor harms."""

        def scenario(at: int) -> bool:
            lock = Exclusion() if exclusive else None
            model = ledger.make(f"model{at}", exclusion=lock)
            with struck(at, model.dispose) as hit:
                try:
                    with ledger.use(model):
                        pass
                except DisposedError:
                    assert model.disposed
            model.dispose()
            until_freed(model)
            assert lock is None or not lock.taken
            return hit()

        run_at_every_line(scenario)

    def test_handler_anywhere_in_creation(self, ledger: Ledger) -> None:
        """A handler that disposes the parent at any line of a creation does no harm."""

        def scenario(at: int) -> bool:
            model = ledger.make(f"model{at}")
            with struck(at, model.dispose) as hit:
                # Inside a use, or the parent could go before the child's handle.
                try:
                    with ledger.use(model):
                        ledger.make(f"child{at}", model).move_to(None)
                except DisposedError:
                    assert model.disposed
            model.dispose()
            until_freed(model)
            made = ledger.handles.get(f"child{at}")
            assert made is None or made.frees == 1
            return hit()

        run_at_every_line(scenario)

    def test_interrupted_anywhere(self) -> None:
        """After Ctrl-C at any call in a disposal the rest is still freed, once."""
        stuck: list[int] = []
        books = Ledger()

        def strike() -> None:
            raise KeyboardInterrupt

        def scenario(at: int) -> bool:
            model = books.make(f"model{at}")
            child = books.make(f"child{at}", model)
            with (
                contextlib.suppress(KeyboardInterrupt),
                struck(at, strike, on="call") as hit,
            ):
                model.dispose()
            for resource in (child, model):
                mine = resource._node.tearing == threading.get_ident()
                if mine and listed(resource):  # claimed, and nobody will free it
                    stuck.append(at)
                    resource._node.tearing = 0
                resource.dispose()
            until_freed(model, child)
            return hit()

        run_at_every_line(scenario)
        assert not stuck
        assert not books.violations

    def test_unused_in_a_section(self, ledger: Ledger) -> None:
        """In the middle of a section of the kernel nothing is disposed as unused."""
        with ledger.make("model") as model, TREE:
            assert not model.dispose_if_unused()
            assert not model.disposed


def run_at_every_line(scenario: Callable[[int], bool]) -> None:
    """Run with 0, 1, 2, ... until the strike comes too late; in a watched thread."""

    def work() -> int:
        at = 0
        while scenario(at):
            at += 1
        return at

    assert run_in_thread(work).result() > 10
