"""Mutants of lifecycle.md: disposing, and using what is disposed."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest

from llmcore import LLM, Resource, Scope, Sequence, Stream
from llmcore.engine.loop import BatchLoop
from llmcore.engine.samplers import NativeSamplers
from llmcore.engine.slots import SlotPool
from llmcore.errors import DisposedError, DisposeTimeoutError
from llmcore.lifecycle import resource, teardown, tree
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.states import State
from llmcore.lifecycle.use import uses_here
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="dispose.idempotent")
def frees_twice(patch: Patch) -> None:
    """The second dispose() runs the teardown of the first again."""
    dispose, kept = Resource.dispose, {}

    def again(self, **options):
        node = self._node
        free, handle = kept.setdefault(node.number, (node.teardown, node.handle))
        if node.state is State.DISPOSED and free is not None:
            with suppress(AttributeError):  # of a loop that let go of its context
                free(handle)
        dispose(self, **options)

    patch.setattr(Resource, "dispose", again)


@mutant(kills="dispose.freed-on-return")
def forgets_samplers(patch: Patch) -> None:
    """A context goes without the samplers that hang on it."""
    patch.setattr(NativeSamplers, "close", lambda self: None)


@mutant(kills="dispose.children-first")
def frees_siblings_oldest_first(patch: Patch) -> None:
    """Of two contexts of a model, the older one goes first."""
    right = tree.dispose_order

    def order(*args):
        nodes = right(*args)
        contexts = [node for node in nodes if node.kind == "context"]
        return [contexts.pop() if n.kind == "context" else n for n in nodes]

    patch.setattr(tree, "dispose_order", order)


@mutant(kills="dispose.children-first")
def frees_parents_first(patch: Patch) -> None:
    """A model goes before the contexts on it."""
    right = tree.dispose_order
    patch.setattr(tree, "dispose_order", lambda *args: right(*args)[::-1])


@mutant(kills="dispose.cascade")
def disposed_means_freed(patch: Patch) -> None:
    """`disposed` is False until the memory is back."""
    late = property(lambda self: self._node.state is State.DISPOSED)
    patch.setattr(Resource, "disposed", late)


@mutant(
    kills="dispose.always-releases",
    also={"telemetry.one-end": "what is never freed never tells its end"},
)
def stops_at_the_first_error(patch: Patch) -> None:
    """A failing teardown leaves the rest of the subtree alive."""
    free, hand_over = teardown._free, teardown._Disposal.hand_over
    failed = []

    def strict(node):
        failed[:] = free(node)
        if failed:
            raise teardown.DisposeError("teardown failed", list(failed))
        return []

    patch.setattr(teardown, "_free", strict)
    patch.setattr(
        teardown._Disposal, "hand_over", lambda self: failed or hand_over(self)
    )


@mutant(kills="dispose.always-releases")
def swallows_errors(patch: Patch) -> None:
    """A failing teardown is a secret."""
    free = teardown._free
    patch.setattr(teardown, "_free", lambda node: free(node) and [])


@mutant(kills="dispose.use-after")
def one_unguarded_property(patch: Patch) -> None:
    """`Sequence.tokens` forgets to look whether it is disposed."""
    unguarded = property(lambda self: list(self._slot.tokens))
    patch.setattr(Sequence, "tokens", unguarded)


@mutant(kills="dispose.names-cause")
def says_only_disposed(patch: Patch) -> None:
    """The error does not say whose disposal it was."""

    def refuse(self):
        raise DisposedError(f"{self.label} is disposed")

    right = Node.refuse
    patch.setattr(
        Node,
        "refuse",
        lambda self: refuse(self) if isinstance(self.cause, Node) else right(self),
    )


@mutant(kills="dispose.allowed-after")
def repr_refuses(patch: Patch) -> None:
    """repr() of a disposed object raises."""
    right = Resource.__repr__

    def refuse(self):
        self._check()
        return right(self)

    patch.setattr(Resource, "__repr__", refuse)


@mutant(kills="dispose.no-copy")
def sequences_can_be_copied(patch: Patch) -> None:
    """copy.copy() of a sequence gives a second owner of its slot."""
    patch.setattr(Sequence, "__copy__", lambda self: self, raising=False)


@mutant(
    kills="dispose.busy",
    also={
        "thread.concurrent-dispose": "nobody waits, however many there are",
        "telemetry.in-time": "an answer of which it does not wait for the end",
    },
)
def frees_under_use(patch: Patch) -> None:
    """A disposal that may wait for ever waits neither for users nor for the engine."""
    right = teardown._wait

    def wait(ready, node, deadline):
        in_use = node.kind in ("sequence", "context") and not node.draining
        if not in_use or deadline is not None:
            right(ready, node, deadline)

    patch.setattr(teardown, "_wait", wait)
    patch.setattr(BatchLoop, "close", lambda self: None)


@mutant(kills="dispose.cancel")
def running_work_is_not_told(patch: Patch) -> None:
    """A disposal lets generation that is inside the engine go on to its end."""
    right = Resource.dispose

    def dispose(self, *, inflight="cancel", timeout=None):
        if self._node.kind == "context" and timeout == 0 and self._node.users:
            inflight = "wait"
        right(self, inflight=inflight, timeout=timeout)

    patch.setattr(Resource, "dispose", dispose)


@mutant(kills="dispose.wait")
def wait_means_cancel(patch: Patch) -> None:
    """inflight="wait" is ignored."""
    right = Resource.dispose

    def dispose(self, *, inflight="cancel", timeout=None):
        right(self, inflight="cancel", timeout=timeout)

    patch.setattr(Resource, "dispose", dispose)


@mutant(kills="dispose.ends-iteration")
def streams_end_normally(patch: Patch) -> None:
    """A stream whose sequence went looks as if it had come to its end."""
    right = Stream._ready

    def step(self):
        try:
            return right(self)
        except DisposedError:
            return None

    patch.setattr(Stream, "_ready", step)


@mutant(kills="dispose.in-callback")
def never_frees_after_a_callback(patch: Patch) -> None:
    """What a callback disposed is marked and never freed."""
    right = teardown.dispose_marked

    def dispose_marked(root, nodes, *, timeout=None):
        if root.kind == "model" and uses_here():
            return
        right(root, nodes, timeout=timeout)

    patch.setattr(teardown, "dispose_marked", dispose_marked)


@mutant(kills="dispose.in-callback")
def waits_for_itself(patch: Patch) -> None:
    """A disposal in a callback waits for the call it is in."""
    right = teardown.uses_here

    def uses():
        kinds = [use._node.kind for use in right()]
        return [kind for kind in kinds if kind != "model" or len(kinds) > 1]

    patch.setattr(teardown, "uses_here", uses)


@mutant(kills="dispose.timeout")
def a_timeout_forgets_the_memory(patch: Patch) -> None:
    """After a timeout nobody frees the rest."""
    right = teardown._Disposal.hand_over

    def hand_over(self):
        if not isinstance(sys.exception(), DisposeTimeoutError):
            right(self)

    patch.setattr(teardown._Disposal, "hand_over", hand_over)


@mutant(kills="dispose.context-manager")
def exceptions_keep_it_open(patch: Patch) -> None:
    """A block that is left by an exception does not dispose."""
    right = Resource.__exit__

    def leave(self, kind, error, traceback):
        if not isinstance(error, KeyError):
            right(self, kind, error, traceback)

    patch.setattr(Resource, "__exit__", leave)


@mutant(kills="dispose.context-manager")
def exceptions_are_swallowed(patch: Patch) -> None:
    """A block eats the exception that leaves it."""
    right = Resource.__exit__

    def leave(self, kind, error, traceback):
        right(self, kind, error, traceback)
        return isinstance(error, KeyError)

    patch.setattr(Resource, "__exit__", leave)


@mutant(kills="dispose.owner")
def the_block_still_owns(patch: Patch) -> None:
    """A moved resource is disposed by the block it was moved out of."""

    def leave(self, *exc_info):
        self.dispose()

    patch.setattr(Resource, "__exit__", leave)


@mutant(kills="dispose.context-manager")
def async_blocks_keep_it_open(patch: Patch) -> None:
    """``async with`` forgets to dispose."""

    async def leave(self, *exc_info):
        pass

    patch.setattr(Resource, "__aexit__", leave)


@mutant(kills="dispose.owner")
def scopes_keep_what_they_release(patch: Patch) -> None:
    """A released resource is still disposed by its scope."""
    patch.setattr(Scope, "release", lambda self, resource: resource)


@mutant(kills="dispose.lease")
def leases_do_not_count(patch: Patch) -> None:
    """dispose_if_unused looks at everything but leases."""
    right = resource.mark_if_unused

    def mark_if_unused(root, idle):
        root.holds = 0
        return right(root, idle)

    patch.setattr(resource, "mark_if_unused", mark_if_unused)


@mutant(kills="dispose.lease-owner")
def leases_stop_the_owner(patch: Patch) -> None:
    """dispose() does nothing while a lease is held."""
    right = Resource.dispose

    def dispose(self, **options):
        if not self._node.holds:
            right(self, **options)

    patch.setattr(Resource, "dispose", dispose)


@mutant(
    kills="dispose.slot-back",
    also={"seq.stale": "it takes the place of a sequence that was in use"},
)
def a_slot_in_use_is_lost(patch: Patch) -> None:
    """The place of a sequence that goes during a stream is not given back."""
    right = SlotPool.give_back

    def give_back(self, slot):
        used = slot.busy
        right(self, slot)
        if used:
            self._free.remove(slot.number)

    patch.setattr(SlotPool, "give_back", give_back)


@mutant(kills="dispose.facade-close")
def close_is_dispose(patch: Patch) -> None:
    """LLM.close() is an alias of dispose()."""
    patch.setattr(LLM, "close", lambda self: self.model.dispose())


@mutant(kills="dispose.forgotten")
def models_are_leaked(patch: Patch) -> None:
    """A forgotten model stays in memory."""
    watch = resource.watch

    def careless(self, node):
        watch(self, node)
        if node.kind == "model":
            node.finalizer.detach()

    patch.setattr(resource, "watch", careless)


@mutant(kills="dispose.forgotten-warns")
def forgets_in_silence(patch: Patch) -> None:
    """Nobody hears of a forgotten resource."""
    from llmcore.lifecycle import reaper

    patch.setattr(reaper, "warn_forgotten", lambda label, site: None)


@mutant(kills="dispose.reopen")
def a_closed_model_is_cached(patch: Patch):
    """The engine gives a model that was closed to whoever loads it again."""
    from mutants.broken import CachingBackend

    return CachingBackend
