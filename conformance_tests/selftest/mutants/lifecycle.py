"""Mutants of lifecycle.md."""

from __future__ import annotations

import pytest

from llmcore.lifecycle import Resource
from mutants import mutant


@mutant(kills="dispose.idempotent")
def frees_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second dispose() runs the teardown of the first again."""
    dispose, kept = Resource.dispose, {}

    def again(self, **options):
        node = self._node
        handle = kept.setdefault(node.number, (node.teardown, node.handle))
        if node.state.value == "disposed" and handle[0] is not None:
            handle[0](handle[1])
        dispose(self, **options)

    monkeypatch.setattr(Resource, "dispose", again)
