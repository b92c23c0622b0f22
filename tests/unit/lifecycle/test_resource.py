from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from llmcore.errors import BrokenError, BusyError, DisposedError, DisposeError
from llmcore.lifecycle import (
    Node,
    Operation,
    Resource,
    break_all,
    format_tree,
    observe,
    resources,
    tree,
)
from llmcore.lifecycle.node import TREE
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
        assert not (node.users or node.operations or node.holds or node.dependants)

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


class TestWith:
    def test_exit(self, ledger: Ledger) -> None:
        """The end of a ``with`` block disposes."""
        with ledger.make("model") as model:
            assert not model.disposed

        assert ledger.freed == ["model"]

    def test_exception(self, ledger: Ledger) -> None:
        """A block that raises disposes, and raises just that."""
        error = ZeroDivisionError()

        with pytest.raises(ZeroDivisionError) as caught, ledger.make("model"):
            raise error

        assert caught.value is error
        assert ledger.freed == ["model"]

    def test_both_fail(self, ledger: Ledger) -> None:
        """If the teardown raises too, the error of the block is its context."""
        with (
            pytest.raises(DisposeError) as caught,
            ledger.make("model", fail=ValueError()),
        ):
            raise ZeroDivisionError

        assert isinstance(caught.value.__context__, ZeroDivisionError)

    def test_moved(self, ledger: Ledger) -> None:
        """A block does not dispose what was moved to another owner."""
        with ledger.make("owner") as owner:
            with ledger.make("model") as model:
                model.move_to(owner)

            assert not model.disposed

        assert ledger.freed == ["model", "owner"]

    @pytest.mark.anyio
    async def test_async(self, ledger: Ledger) -> None:
        """The end of an ``async with`` block disposes."""
        async with ledger.make("model") as model:
            assert not model.disposed

        assert ledger.freed == ["model"]

    @pytest.mark.anyio
    async def test_async_moved(self, ledger: Ledger) -> None:
        """Nor does an ``async with`` dispose what was moved."""
        async with ledger.make("owner") as owner:
            async with ledger.make("model") as model:
                model.move_to(owner)

            assert not model.disposed

    @pytest.mark.anyio
    async def test_async_failing(self, ledger: Ledger) -> None:
        """`adispose` raises what `dispose` raises."""
        model = ledger.make("model", fail=ValueError())

        with pytest.raises(DisposeError):
            await model.adispose()

    @pytest.mark.anyio
    async def test_async_cancelled(self, ledger: Ledger) -> None:
        """A cancelled block disposes completely before the cancellation goes on."""
        import anyio

        with anyio.CancelScope() as scope:
            async with ledger.make("model"):
                scope.cancel()
                await anyio.sleep_forever()

        assert scope.cancelled_caught
        assert ledger.freed == ["model"]

    @pytest.mark.anyio
    async def test_async_loop_runs(self, ledger: Ledger) -> None:
        """The event loop runs while a disposal waits for a use."""
        import anyio

        from .kit import used_elsewhere

        model = ledger.make("model")
        with used_elsewhere(ledger, model) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(model.adispose)
                while not model.disposed:
                    await anyio.lowlevel.checkpoint()
                gate.open()

        assert ledger.freed == ["model"]


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
            ("failed", "context", False),
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
        assert [str(s.exc_value) for s in unraisable] == ["created", "disposed"]


class TestBroken:
    def test_everything_raises(self, ledger: Ledger) -> None:
        """All on a dead engine is broken, and says how it died."""
        with ledger.make("model") as model:
            context = ledger.make("context", model)

            break_all(model._node, "exit code 9")

            for resource in (model, context):
                with pytest.raises(BrokenError, match="exit code 9"):
                    resource._check()
                assert not resource.disposed

    def test_dispose_works(self, ledger: Ledger) -> None:
        """What is broken can be disposed, and is disposed then."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        break_all(model._node, "gone")

        model.dispose()

        assert ledger.freed == ["context", "model"]
        with pytest.raises(DisposedError, match="because model"):
            context._check()

    def test_not_the_owned(self, ledger: Ledger) -> None:
        """A resource that is only owned by a broken one runs on another engine."""
        with ledger.make("model") as model:
            other = ledger.make("other").move_to(model)

            break_all(model._node, "gone")

            other._check()

    def test_disposed_stays(self, ledger: Ledger) -> None:
        """What was disposed before the engine died stays disposed."""
        model = ledger.make("model")
        model.dispose()

        break_all(model._node, "gone")

        assert model.disposed


class TestUse:
    def test_handle(self, ledger: Ledger) -> None:
        """A use hands out the handle and counts while it lasts."""
        with ledger.make("model") as model:
            with model._use() as handle:
                assert handle is ledger.handles["model"]
                assert resources()[-1].uses == 1
            assert resources()[-1].uses == 0

    def test_translate(self, ledger: Ledger) -> None:
        """What leaves a use is translated, with the original kept as its cause."""

        def translate(error: BaseException) -> None:
            if isinstance(error, OSError):
                raise ValueError("better") from error

        with ledger.make("model", translate=translate) as model:
            with pytest.raises(ValueError, match="better") as caught, model._use():
                raise OSError("code -3")
            assert isinstance(caught.value.__cause__, OSError)
            with pytest.raises(KeyError), model._use():
                raise KeyError("as it is")
            assert not model._node.users

    def test_exclusion_released(self, ledger: Ledger) -> None:
        """A refused or failed use gives its exclusion back."""
        lock = threading.Lock()
        model = ledger.make("model", exclusion=lock)
        with pytest.raises(KeyError), model._use():
            raise KeyError
        model.dispose()
        with pytest.raises(DisposedError):
            model._use().__enter__()

        assert not lock.locked()

    def test_nested_exclusion(self, ledger: Ledger) -> None:
        """Inside an exclusive use, a second one that would wait is refused."""
        with ledger.make("model", exclusion=threading.Lock()) as model, model._use():
            with pytest.raises(BusyError, match=r"model#\d+ is in use"):
                model._use().__enter__()
            assert len(model._node.users) == 1

    def test_nested_other(self, ledger: Ledger) -> None:
        """Inside an exclusive use, another free one is fine."""
        with (
            ledger.make("a", exclusion=threading.Lock()) as a,
            ledger.make("b", exclusion=threading.Lock()) as b,
            a._use(),
            b._use() as handle,
        ):
            assert handle is ledger.handles["b"]

    def test_nested_shared(self, ledger: Ledger) -> None:
        """Without exclusion, uses nest."""
        with ledger.make("model") as model, model._use(), model._use():
            assert len(model._node.users) == 2

    def test_disposed_does_not_wait(self, ledger: Ledger) -> None:
        """A disposed object refuses at once, even if its exclusion is taken."""
        lock = threading.Lock()
        model = ledger.make("model", exclusion=lock)
        model.dispose()

        with lock, pytest.raises(DisposedError):
            run_in_thread(model._use().__enter__).result()


class TestNotCopied:
    @pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_refused(self, ledger: Ledger, copier: Callable[[Any], Any]) -> None:
        """Copying and pickling are refused, and say why."""
        with (
            ledger.make("model") as model,
            pytest.raises(TypeError, match=r"model#\d+ cannot be copied or pickled"),
        ):
            copier(model)


class TestShown:
    def test_repr(self, ledger: Ledger) -> None:
        """The representation shows kind, number, name and state."""
        model = ledger.make("model", name="tiny")
        number = model._node.number
        assert repr(model) == f"<llmcore.Resource model#{number} 'tiny' LIVE>"

        break_all(model._node, "gone")
        assert repr(model).endswith("BROKEN>")

        model.dispose()
        assert repr(model).endswith("DISPOSED>")

    def test_disposing(self, ledger: Ledger) -> None:
        """While the memory is on the way back, the representation says so."""
        shown: list[str] = []
        model = ledger.make("model", during_free=lambda: shown.append(repr(model)))

        model.dispose()

        assert shown[0].endswith("DISPOSING>")

    def test_tree(self) -> None:
        """The tree is indented by dependence and names the line of creation."""
        with Resource("model", name="tiny") as model, model._use():
            child = Resource("context", parent=model)
            a, b = model._node, child._node

            lines = format_tree(a).splitlines()

        line = TestShown.test_tree.__code__.co_firstlineno + 2
        assert lines == [
            f"model#{a.number} 'tiny' live, 1 inside ({__file__}:{line})",
            f"  context#{b.number} live ({__file__}:{line + 1})",
        ]

    def test_data(self, ledger: Ledger) -> None:
        """The same as data: numbers, counts and who owns whom."""
        with ledger.make("owner") as owner, ledger.make("model") as model:
            context = ledger.make("context", model).move_to(owner)
            with model._use(), context.lease(), Operation(model._node):
                _, first, second = resources()[-3:]

        assert (first.kind, first.uses, first.operations) == ("model", 1, 1)
        assert (second.parent, second.owner, second.holds) == (
            model._node.number,
            owner._node.number,
            1,
        )
