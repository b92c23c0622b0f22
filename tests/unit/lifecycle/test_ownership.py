from __future__ import annotations

import gc
import weakref

import pytest

from llmcore.errors import DisposedError
from llmcore.lifecycle import Operation, Resource, Scope, collect_forgotten
from llmcore.lifecycle.teardown import dispose

from .kit import Ledger, listed, used_elsewhere


class TestScope:
    def test_disposes(self, ledger: Ledger) -> None:
        """A scope disposes what it owns, the newest first."""
        with Scope() as scope:
            assert scope.own(made := ledger.make("old")) is made
            scope.own(ledger.make("new"))

        assert ledger.freed == ["new", "old"]

    def test_keeps_alive(self, ledger: Ledger) -> None:
        """An owner keeps what it owns alive."""
        with Scope() as scope:
            alive = weakref.ref(scope.own(ledger.make("model", keep=False)))
            gc.collect()

            assert alive() is not None

    def test_lets_go(self, ledger: Ledger) -> None:
        """A disposed scope keeps nothing alive."""
        scope = Scope()
        gone = weakref.ref(scope.own(ledger.make("model", keep=False)))
        scope.dispose()

        assert gone() is None

    def test_release(self, ledger: Ledger) -> None:
        """What a scope released it does not dispose."""
        with Scope() as scope:
            model = scope.own(ledger.make("model"))
            assert scope.release(model) is model

        assert not model.disposed
        model.dispose()

    def test_release_other(self, ledger: Ledger) -> None:
        """A scope releases only what it owns."""
        with (
            Scope() as scope,
            ledger.make("model") as model,
            pytest.raises(ValueError, match=r"model#\d+ is not owned by scope"),
        ):
            scope.release(model)

    def test_disposed_elsewhere(self, ledger: Ledger) -> None:
        """What is disposed before its scope is forgotten by the scope."""
        with Scope() as scope:
            scope.own(ledger.make("model")).dispose()

            assert not scope._node.owned

    def test_dependence_stays(self, ledger: Ledger) -> None:
        """Disposing the parent disposes also what a scope owns."""
        with Scope() as scope:
            model = ledger.make("model")
            context = scope.own(ledger.make("context", model))

            model.dispose()

            assert context.disposed
            assert not scope._node.owned

    def test_owns_parent(self, ledger: Ledger) -> None:
        """What owns its own parent goes first, and takes the parent along."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        model.move_to(context)

        context.dispose()

        assert ledger.freed == ["context", "model"]

    def test_parent_disposed_first(self, ledger: Ledger) -> None:
        """An owned parent that is disposed itself takes its owner along."""
        model = ledger.make("model")
        context = ledger.make("context", model)
        model.move_to(context)

        model.dispose()

        assert ledger.freed == ["context", "model"]

    def test_nested(self, ledger: Ledger) -> None:
        """A scope may own a scope."""
        with Scope() as outer:
            inner = outer.own(Scope())
            inner.own(ledger.make("model"))

        assert ledger.freed == ["model"]


class TestMove:
    def test_one_owner(self, ledger: Ledger) -> None:
        """A resource has one owner: the last it was moved to."""
        with Scope() as second:
            with Scope() as first:
                model = first.own(ledger.make("model")).move_to(second)

            assert not model.disposed

        assert ledger.freed == ["model"]

    def test_cycle(self, ledger: Ledger) -> None:
        """Two cannot own each other, nor one itself."""
        with Scope() as outer:
            inner = outer.own(Scope())

            with pytest.raises(ValueError, match="cannot own"):
                outer.move_to(inner)
            with pytest.raises(ValueError, match="cannot own"):
                outer.move_to(outer)

            assert inner._node.owner is outer._node

    @pytest.mark.parametrize("which", ["resource", "owner"])
    def test_disposed(self, ledger: Ledger, which: str) -> None:
        """If one of the two is disposed, nothing changes."""
        with Scope() as scope, ledger.make("model") as model:
            with Scope() as other:
                scope.own(model)
            gone = ledger.make("gone")
            gone.dispose()

            with pytest.raises(DisposedError):
                if which == "owner":
                    model.move_to(other)
                else:
                    gone.move_to(scope)

            assert model._node.owner is scope._node
            assert list(scope._node.owned.values()) == [model]

    def test_to_ancestor(self, ledger: Ledger) -> None:
        """A grandchild that belongs to its grandparent keeps nobody alive."""
        with pytest.warns(ResourceWarning):
            model = ledger.make("model", keep=False)
            context = ledger.make("context", model, keep=False)
            ledger.make("sequence", context, keep=False).move_to(model)
            forgotten = weakref.ref(model), model._node
            del model, context
            gc.collect()
            collect_forgotten()
            left, node = forgotten[0](), forgotten[1]
            dispose(node)

        assert left is None


class TestLease:
    def test_holds(self, ledger: Ledger) -> None:
        """A held object is not disposed as unused; afterwards it is."""
        model = ledger.make("model")
        with model.lease():
            assert not model.dispose_if_unused()
        assert model.dispose_if_unused()

        assert ledger.freed == ["model"]

    def test_ends_once(self, ledger: Ledger) -> None:
        """Releasing a lease twice does not end somebody else's."""
        with ledger.make("model") as model, model.lease():
            lease = model.lease()
            lease.release()
            lease.release()

            assert not model.dispose_if_unused()

    def test_held_below(self, ledger: Ledger) -> None:
        """A hold on a child, or on what it owns, keeps the parent too."""
        with ledger.make("model") as model:
            owned = ledger.make("owned").move_to(ledger.make("context", model))

            with owned.lease():
                assert not model.dispose_if_unused()

    def test_in_use(self, ledger: Ledger) -> None:
        """What is in use is not unused."""
        with ledger.make("model") as model, used_elsewhere(ledger, model):
            assert not model.dispose_if_unused()

    def test_running(self, ledger: Ledger) -> None:
        """What is worked on is not unused, even between two uses."""
        with ledger.make("model") as model, Operation(model._node):
            assert not model.dispose_if_unused()

    def test_idle(self, ledger: Ledger) -> None:
        """Idle time counts from the end of the last hold."""
        with ledger.make("model") as model:
            with model.lease():
                model._node.idle_since -= 1000
            assert not model.dispose_if_unused(idle=500)

            model._node.idle_since -= 1000
            assert model.dispose_if_unused(idle=500)

    def test_owner_wins(self, ledger: Ledger) -> None:
        """`dispose` by the owner does not wait for a hold."""
        model = ledger.make("model")
        with model.lease():
            model.dispose()

            assert ledger.freed == ["model"]

    def test_keeps_alive(self, ledger: Ledger) -> None:
        """A hold keeps its object alive."""
        lease = ledger.make("model", keep=False).lease()
        gc.collect()

        assert "model" not in ledger.freed
        resource = lease._resource
        assert resource is not None
        assert listed(resource)
        resource.dispose()

    def test_refused_creation(self) -> None:
        """A failed subclass leaves one exception, and nothing behind."""

        class Half(Resource):
            def __init__(self) -> None:
                raise ValueError("before the kernel heard of it")

        with pytest.raises(ValueError, match="before"):
            Half()
