"""Mutants of threads.md."""

from __future__ import annotations

import threading

import pytest

from llmcore import Llama, Model, Resource, Sequence
from llmcore.errors import BusyError
from llmcore.lifecycle.states import State
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="thread.one-user")
def lets_a_second_user_in(patch: Patch) -> None:
    """Cutting a sequence takes it away from its user."""
    right = Sequence.truncate

    def truncate(self, length):
        self._slot.user = None
        return right(self, length)

    patch.setattr(Sequence, "truncate", truncate)


@mutant(kills="thread.hand-over")
def belongs_to_its_thread(patch: Patch) -> None:
    """A model makes contexts only in the thread that loaded it."""
    init, create = Model.__init__, Model.create_context

    def remember(self, *args):
        self.thread = threading.get_ident()
        init(self, *args)

    def create_context(self, params=None, **fields):
        if threading.get_ident() != self.thread:
            raise BusyError("the model belongs to another thread")
        return create(self, params, **fields)

    patch.setattr(Model, "__init__", remember)
    patch.setattr(Model, "create_context", create_context)


class NoExclusion:
    """An exclusion that keeps nobody out."""

    def enter(self, use):
        return True

    def leave(self, use):
        pass


@mutant(kills="thread.no-overlap")
def calls_overlap(patch: Patch) -> None:
    """Contexts let everybody in."""
    patch.setattr(Llama, "_exclusion", lambda self: NoExclusion)


@mutant(kills="thread.concurrent-dispose")
def the_second_disposer_does_not_wait(patch: Patch) -> None:
    """Who finds a disposal in progress goes on at once."""
    right = Resource.dispose

    def dispose(self, **options):
        if self._node.state is not State.DISPOSING:
            right(self, **options)

    patch.setattr(Resource, "dispose", dispose)


@mutant(kills="thread.independent")
def contexts_share_scratch_memory(patch: Patch):
    """The engine keeps the results of all contexts in one place."""
    from mutants.broken import SharedScratch

    return SharedScratch
