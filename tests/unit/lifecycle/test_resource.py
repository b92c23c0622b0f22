from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmcore.errors import BrokenError, DisposedError, DisposeError
from llmcore.lifecycle import (
    Node,
    Operation,
    Resource,
    break_all,
    observe,
    tree,
)
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.tree import NODES

from .kit import Ledger, listed, run_in_thread, until_freed


class TestDispose:
    def test_once(self, ledger: Ledger) -> None:
        """Disposing frees, and does nothing the second time."""
        model = ledger.make("model")

        model.dispose()
        model.dispose()

        assert ledger.freed == ["model"]

    def test_order(self, ledger: Ledger) -> None:
        """Children go before parents and the newest first."""
        model = ledger.make("model")
        old = ledger.make("old", model)
        ledger.make("new", model)
        ledger.make("newest", old)

        model.dispose()

        assert ledger.freed == ["newest", "new", "old", "model"]

    def test_sibling_stays(self, ledger: Ledger) -> None:
        """Disposing a child leaves its parent and siblings alone."""
        with ledger.make("model") as model:
            child, sibling = ledger.make("child", model), ledger.make("sibling", model)

            child.dispose()

            assert ledger.freed == ["child"]
            assert not sibling.disposed
            assert list(model._node.dependants) == [sibling._node.number]

    def test_first_moment(self, ledger: Ledger) -> None:
        """At the first teardown the whole subtree is already disposed."""
        seen: list[bool] = []
        model = ledger.make("model")
        context = ledger.make("context", model)

        def look() -> None:
            seen.extend([model.disposed, context.disposed, sequence.disposed])

        sequence = ledger.make("sequence", context, during_free=look)

        model.dispose()

        assert seen == [True, True, True]

    def test_failing_teardown(self, ledger: Ledger) -> None:
        """Teardowns that raise become one group, and everything is freed."""
        broken = ValueError("half-way")
        model = ledger.make("model", fail=OSError("last"))
        ledger.make("old", model)
        ledger.make("new", ledger.make("middle", model, fail=broken))

        with pytest.raises(DisposeError, match="model") as caught:
            model.dispose()

        assert ledger.freed == ["new", "middle", "old", "model"]
        assert isinstance(caught.value, ExceptionGroup)
        assert caught.value.exceptions[0] is broken
        assert list(map(type, caught.value.exceptions)) == [ValueError, OSError]
        assert not listed(model)

    def test_failed_is_final(self, ledger: Ledger) -> None:
        """After a teardown raised, disposing again does nothing."""
        model = ledger.make("model", fail=ValueError("no"))
        with pytest.raises(DisposeError):
            model.dispose()

        model.dispose()

        assert ledger.freed == ["model"]

    def test_base_exception(self, ledger: Ledger) -> None:
        """A Ctrl-C inside a teardown is passed on, and everything is freed."""
        model = ledger.make("model")
        child = ledger.make("child", model, fail=KeyboardInterrupt())

        with pytest.raises(KeyboardInterrupt):
            model.dispose()

        until_freed(model, child)
        assert ledger.freed == ["child", "model"]

    def test_unknown_inflight(self, ledger: Ledger) -> None:
        """An unknown ``inflight`` is refused before anything happens."""
        with ledger.make("model") as model:
            with pytest.raises(ValueError, match="'cancel' or 'wait'"):
                model.dispose(inflight="maybe")  # type: ignore[arg-type]
            assert not model.disposed

    @pytest.mark.parametrize("target", ["itself", "parent"])
    def test_from_its_teardown(self, ledger: Ledger, target: str) -> None:
        """A teardown that disposes its own object or its parent does not hang."""
        model = ledger.make("model")

        def again() -> None:
            (child if target == "itself" else model).dispose()

        child = ledger.make("child", model, during_free=again)

        run_in_thread(child.dispose).result()
        model.dispose()

        until_freed(model)
        assert ledger.freed == ["child", "model"]

    def test_handle_outside_lock(self) -> None:
        """What the handle runs when it dies does not run under the tree's lock."""
        locked: list[bool] = []

        class Wrapper:
            def __del__(self) -> None:
                locked.append(TREE.mine)

        Resource("model", handle=Wrapper()).dispose()

        assert locked == [False]

    def test_owned_outside_lock(self) -> None:
        """What an owned object runs when it dies does not run under the lock."""
        locked: list[bool] = []

        class Noisy(Resource):
            def __del__(self) -> None:
                locked.append(TREE.mine)

        owner = Resource("owner")
        Noisy("owned").move_to(owner)

        owner.dispose()

        assert locked == [False]


class TestDisposed:
    def test_names_ancestor(self, ledger: Ledger) -> None:
        """The error names the object and the ancestor whose disposal caused it."""
        model = ledger.make("model", name="SmolLM2")
        sequence = ledger.make("sequence", ledger.make("context", model))

        model.dispose()

        pattern = r"^sequence#\d+ is disposed because model#\d+ 'SmolLM2' was disposed"
        with pytest.raises(DisposedError, match=pattern):
            sequence._check()

    def test_names_itself_only(self, ledger: Ledger) -> None:
        """An object that was disposed itself is the only one named."""
        model = ledger.make("model")
        model.dispose()

        with pytest.raises(DisposedError, match=r"^model#\d+ is disposed: create"):
            model._check()

    def test_first_cause(self, ledger: Ledger) -> None:
        """The first disposal stays the cause, whatever is disposed later."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        sequence = ledger.make("sequence", context)
        context.dispose()
        model.dispose()

        with pytest.raises(DisposedError, match="because context"):
            sequence._check()

    def test_names_owner(self, ledger: Ledger) -> None:
        """What went because its owner went says so."""
        owner, model = ledger.make("owner"), ledger.make("model")
        model.move_to(owner)
        owner.dispose()

        with pytest.raises(DisposedError, match="because owner"):
            model._check()

    @pytest.mark.parametrize(
        "use",
        [
            lambda r: r._check(),
            lambda r: r._use().__enter__(),
            lambda r: r.__enter__(),
            lambda r: r.lease(),
            lambda r: r.move_to(None),
            lambda r: Resource("child", parent=r),
            lambda r: Operation(r._node),
        ],
        ids=["check", "use", "with", "lease", "move", "child", "operation"],
    )
    def test_refuses(self, ledger: Ledger, use: Callable[[Resource], object]) -> None:
        """Everything that needs the object raises, and counts nothing."""
        model = ledger.make("model")
        model.dispose()

        with pytest.raises(DisposedError):
            use(model)

        node = model._node
        assert not (node.users)
        assert not (node.operations)
        assert not (node.holds)
        assert not (node.dependants)

    def test_allowed(self, ledger: Ledger) -> None:
        """`disposed`, `dispose`, leaving a ``with`` and ``repr`` go on working."""
        with ledger.make("model") as model:
            model.dispose()
            assert model.disposed
            assert "DISPOSED" in repr(model)

    def test_lets_go(self, ledger: Ledger) -> None:
        """A freed object keeps neither its handle nor its teardown."""
        model = ledger.make("model", interrupt=lambda: None)
        model.dispose()

        node = model._node
        assert (node.handle, node.teardown, node.interrupt) == (None, None, None)


class TestCreation:
    def test_refused(self, ledger: Ledger) -> None:
        """A child of a disposed parent is torn down and leaves nothing."""
        model = ledger.make("model")
        model.dispose()
        before = set(NODES)

        with pytest.raises(DisposedError, match="model"):
            ledger.make("context", model)

        assert ledger.freed == ["model", "context"]
        assert set(NODES) == before
        assert not model._node.dependants

    def test_refused_and_failing(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """If that teardown raises, the original error is still the one raised."""
        model = ledger.make("model")
        model.dispose()

        with pytest.raises(DisposedError, match="model"):
            ledger.make("context", model, fail=ValueError("teardown"))

        assert [type(shown.exc_value) for shown in unraisable] == [ValueError]

    def test_broken_parent(self, ledger: Ledger) -> None:
        """A broken parent refuses a child for its own reason."""
        with ledger.make("model") as model:
            break_all(model._node, "gone")

            with pytest.raises(BrokenError, match="gone"):
                ledger.make("context", model)

    def test_observed(self, ledger: Ledger) -> None:
        """Observers hear of creation, disposal and failure, outside of the lock."""
        heard: list[tuple[str, str, bool]] = []

        def observer(step: str, node: Node) -> None:
            heard.append((step, node.kind, TREE.mine))

        observe(observer)
        try:
            with (
                pytest.raises(DisposeError),
                ledger.make("model") as model,
            ):
                ledger.make("context", model, fail=ValueError())
        finally:
            tree._observers.remove(observer)

        assert heard == [
            ("created", "model", False),
            ("created", "context", False),
            ("disposing", "context", False),
            ("failed", "context", False),
            ("disposing", "model", False),
            ("disposed", "model", False),
        ]

    def test_failing_observer(self, ledger: Ledger, unraisable: list[Any]) -> None:
        """An observer that raises is shown and harms nobody."""

        def observer(step: str, node: Node) -> None:
            raise ValueError(step)

        observe(observer)
        try:
            ledger.make("model").dispose()
        finally:
            tree._observers.remove(observer)

        assert ledger.freed == ["model"]
        steps = ["created", "disposing", "disposed"]
        assert [str(s.exc_value) for s in unraisable] == steps
