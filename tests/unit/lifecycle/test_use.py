from __future__ import annotations

import pytest

from llmcore.errors import BrokenError, BusyError, DisposedError
from llmcore.lifecycle import (
    Exclusion,
    break_all,
    resources,
)

from .kit import Ledger, run_in_thread


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
        lock = Exclusion()
        model = ledger.make("model", exclusion=lock)
        with pytest.raises(KeyError), model._use():
            raise KeyError
        model.dispose()
        with pytest.raises(DisposedError):
            model._use().__enter__()

        assert not lock.taken

    def test_nested_exclusion(self, ledger: Ledger) -> None:
        """Inside an exclusive use, a second one that would wait is refused."""
        with ledger.make("model", exclusion=Exclusion()) as model, model._use():
            with pytest.raises(BusyError, match=r"model#\d+ is in use"):
                model._use().__enter__()
            assert len(model._node.users) == 1

    def test_nested_other(self, ledger: Ledger) -> None:
        """Inside an exclusive use, another free one is fine."""
        with (
            ledger.make("a", exclusion=Exclusion()) as a,
            ledger.make("b", exclusion=Exclusion()) as b,
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
        lock = Exclusion()
        model = ledger.make("model", exclusion=lock)
        model.dispose()

        with (
            ledger.make("other", exclusion=lock) as other,
            other._use(),
            pytest.raises(DisposedError),
        ):
            run_in_thread(model._use().__enter__).result()
