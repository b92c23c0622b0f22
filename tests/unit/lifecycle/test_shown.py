from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from llmcore.lifecycle import (
    Operation,
    Resource,
    break_all,
    format_tree,
    resources,
)

from .kit import Ledger


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
