from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from llmcore.errors import (
    BrokenError,
    DisposedError,
    DisposeError,
    DisposeTimeoutError,
)
from llmcore.lifecycle import (
    Lease,
    Operation,
    Resource,
    Scope,
    break_all,
    collect_forgotten,
)
from llmcore.lifecycle.teardown import dispose
from llmcore.lifecycle.tree import NODES

from .kit import Ledger, until_freed, used_elsewhere

picks = st.integers(0, 1000)


class Thing:
    """What the model knows of one resource."""

    def __init__(self, name: str, resource: Resource, parent: Thing | None) -> None:
        self.name = name
        self.resource: Resource | None = resource  # None once it is dropped
        self.node = resource._node
        self.parent = parent
        self.owner = parent
        self.alive = True
        self.broken = False
        self.fails = False
        self.holds: list[Lease] = []
        self.operations: list[Operation] = []

    @property
    def above(self) -> Iterator[Thing]:
        thing = self.parent
        while thing is not None:
            yield thing
            thing = thing.parent

    @property
    def kept_by_owner(self) -> bool:
        """Whether its owner keeps it alive: not what it depends on."""
        owner = self.owner
        if owner is None or owner is self.parent or owner in self.above:
            return False
        return self.alive and owner.alive


class Lives(RuleBasedStateMachine):
    """Random lives of a tree in one thread, against a model of a few lines."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.things: list[Thing] = []
        self.before = set(NODES)
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        # The reaper shows failing teardowns, at a time of its own.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("sys.unraisablehook", lambda shown: None)
        gc.freeze()  # collecting takes microseconds without what was there before
        warnings.simplefilter("ignore", ResourceWarning)

    # -- the model -------------------------------------------------------------------

    @property
    def held(self) -> list[Thing]:
        """The things that the program still refers to, disposed ones too."""
        return [t for t in self.things if t.resource is not None]

    @property
    def usable(self) -> list[Thing]:
        return [t for t in self.held if t.alive and not t.broken]

    def subtree(self, root: Thing) -> list[Thing]:
        found = [root]
        for up in found:
            for t in self.things:
                if t.alive and t not in found and up in (t.parent, t.owner):
                    found.append(t)
        return found

    def goes(self, root: Thing) -> bool:
        """Dispose in the model; whether a teardown raises."""
        gone = self.subtree(root) if root.alive else []
        for thing in gone:
            thing.alive = False
        return any(thing.fails for thing in gone)

    def forgotten(self) -> Thing | None:
        """A living thing that nobody can reach any more."""
        # A disposed one that somebody holds still keeps its parent alive.
        reached = [t for t in self.things if self.anchored(t)]
        for thing in reached:
            if thing.parent is not None and thing.parent not in reached:
                reached.append(thing.parent)
        return next((t for t in self.things if t.alive and t not in reached), None)

    def anchored(self, thing: Thing) -> bool:
        return thing.resource is not None or bool(thing.holds) or thing.kept_by_owner

    def pick(self, things: list[Thing], at: int) -> tuple[Thing, Resource]:
        thing = things[at % len(things)]
        assert thing.resource is not None
        return thing, thing.resource

    def dispose(self, thing: Thing, act: Callable[[], object]) -> None:
        """Dispose in both, and compare what is raised."""
        if self.goes(thing):
            with pytest.raises(DisposeError):
                act()
        else:
            act()

    # -- what programs do ------------------------------------------------------------

    @initialize()
    def root(self) -> None:
        self.add(None, fails=False, scope=False)

    @rule(at=picks, top=st.booleans(), fails=st.booleans())
    def create(self, at: int, top: bool, fails: bool) -> None:
        parent = None if top or not self.usable else self.pick(self.usable, at)[0]
        self.add(parent, fails=fails, scope=False)

    @rule()
    def create_scope(self) -> None:
        self.add(None, fails=False, scope=True)

    def add(self, parent: Thing | None, *, fails: bool, scope: bool) -> None:
        name = f"r{len(self.things)}"
        above = None if parent is None else parent.resource
        resource = (
            Scope()
            if scope
            else self.ledger.make(
                name, above, keep=False, fail=ValueError(name) if fails else None
            )
        )
        thing = Thing(name, resource, parent)
        thing.fails = fails
        self.things.append(thing)

    @precondition(lambda self: self.held)
    @rule(at=picks)
    def refused(self, at: int) -> None:
        """What cannot be used raises the right error, whatever is asked."""
        thing, resource = self.pick(self.held, at)
        if thing.alive and not thing.broken:
            with resource._use():
                assert len(thing.node.users) == 1
            return
        with pytest.raises(BrokenError if thing.alive else DisposedError):
            resource._use().__enter__()
        with pytest.raises(BrokenError if thing.alive else DisposedError):
            Resource("late", parent=resource)

    @precondition(lambda self: self.held)
    @rule(at=picks, inflight=st.sampled_from(["cancel", "wait"]))
    def dispose_one(self, at: int, inflight: Any) -> None:
        thing, resource = self.pick(self.held, at)
        for below in self.subtree(thing):
            self.end_operations(below)  # or waiting for them would be for ever
        self.dispose(thing, lambda: resource.dispose(inflight=inflight))

    @precondition(lambda self: self.held)
    @rule(at=picks)
    def leave_block(self, at: int) -> None:
        thing, resource = self.pick(self.held, at)
        if thing.alive and not thing.broken:
            resource.__enter__()
            self.dispose(thing, lambda: resource.__exit__(None, None, None))

    @precondition(lambda self: self.usable)
    @rule(at=picks, other=picks)
    def dispose_from_inside(self, at: int, other: int) -> None:
        """Returns at once; freed after the use."""
        used, resource = self.pick(self.usable, at)
        thing, target = self.pick(self.held, other)
        nodes = [t.resource for t in self.subtree(thing) if t.resource]
        if any(t.fails for t in self.subtree(thing)):
            return  # shown by another thread, which is tested elsewhere
        scope = isinstance(resource, Scope)
        with resource._use() if scope else self.ledger.use(resource):
            target.dispose()
            self.goes(thing)
            assert target.disposed
            assert not used.alive or not resource.disposed
        until_freed(*nodes)

    @precondition(lambda self: self.usable)
    @rule(at=picks, above=picks)
    def dispose_while_used(self, at: int, above: int) -> None:
        """A disposal gives up, and one that waits comes through."""
        thing, resource = self.pick(self.usable, at)
        if isinstance(resource, Scope):
            return
        roots = [t for t in (thing, *thing.above) if t.resource is not None]
        root, target = self.pick(roots, above)
        if any(t.fails for t in self.subtree(root)):
            return
        with used_elsewhere(self.ledger, resource):
            with pytest.raises(DisposeTimeoutError):
                target.dispose(timeout=0)
            assert resource.disposed
            assert self.ledger.handles[thing.name].frees == 0
        target.dispose()
        self.goes(root)

    @precondition(lambda self: self.held)
    @rule(at=picks)
    def dispose_if_unused(self, at: int) -> None:
        thing, resource = self.pick(self.held, at)
        busy = any(t.holds or t.operations for t in self.subtree(thing))
        if thing.alive and busy:
            assert not resource.dispose_if_unused()
        elif thing.alive:
            self.dispose(thing, resource.dispose_if_unused)

    @precondition(lambda self: self.usable)
    @rule(at=picks, to=picks, back=st.booleans())
    def move(self, at: int, to: int, back: bool) -> None:
        thing, resource = self.pick(self.usable, at)
        owner, target = self.pick(self.usable, to)
        if back:
            resource.move_to(None)
            thing.owner = thing.parent
            return
        chain = [owner]
        while chain[-1].owner is not None and chain[-1].owner is not chain[-1].parent:
            chain.append(chain[-1].owner)
        if thing in chain:
            with pytest.raises(ValueError, match="cannot own"):
                resource.move_to(target)
        else:
            resource.move_to(target)
            thing.owner = owner

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def hold(self, at: int) -> None:
        thing, resource = self.pick(self.usable, at)
        thing.holds.append(resource.lease())

    @rule(at=picks)
    def release(self, at: int) -> None:
        held = [t for t in self.things if t.holds]
        if held:
            held[at % len(held)].holds.pop().release()
            self.collect()

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def begin(self, at: int) -> None:
        thing, _ = self.pick(self.usable, at)
        thing.operations.append(Operation(thing.node))

    @rule(at=picks)
    def end(self, at: int) -> None:
        self.end_operations(self.things[at % len(self.things)])

    def end_operations(self, thing: Thing) -> None:
        while thing.operations:
            thing.operations.pop().end()

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def engine_dies(self, at: int) -> None:
        thing, resource = self.pick(self.usable, at)
        break_all(resource._node, "killed")
        for t in self.things:
            if t is thing or thing in t.above:
                t.broken = True

    @precondition(lambda self: self.held)
    @rule(at=picks)
    def drop(self, at: int) -> None:
        thing = self.held[at % len(self.held)]
        thing.resource = None
        self.collect()

    def collect(self) -> None:
        """Everything that nobody reaches goes, in the model and in the kernel."""
        gc.collect()
        collect_forgotten()
        gc.collect()  # what was kept alive by what went
        collect_forgotten()
        while (thing := self.forgotten()) is not None:
            self.goes(thing)

    # -- what always holds -----------------------------------------------------------

    @invariant()
    def nothing_wrong(self) -> None:
        """The engine saw no double free, no free in use, no parent before its child."""
        assert not self.ledger.violations

    @invariant()
    def freed_exactly(self) -> None:
        """Freed is exactly what the model says."""
        freed = sorted(t.name for t in self.things if not t.alive)
        scopes = {t.name for t in self.things if t.name not in self.ledger.handles}
        assert sorted(self.ledger.freed) == [f for f in freed if f not in scopes]

    @invariant()
    def live_exactly(self) -> None:
        """The table of live nodes is exactly what the model says."""
        alive = {t.node.number for t in self.things if t.alive}
        assert set(NODES) - self.before == alive

    @invariant()
    def links_exactly(self) -> None:
        """So are all links, and `disposed`."""
        for t in self.things:
            below = {x.node.number for x in self.things if x.alive and x.parent is t}
            owned = {
                x.node.number
                for x in self.things
                if x.alive and x.owner is t and x.kept_by_owner
            }
            assert set(t.node.dependants) == (below if t.alive else set())
            assert set(t.node.owned) == owned
            if t.resource is not None:
                assert t.resource.disposed is not t.alive

    def teardown(self) -> None:
        for thing in self.things:
            self.end_operations(thing)
            thing.holds.clear()
            thing.resource = None
        self.collect()
        for number in set(NODES) - self.before:  # each kept alive by another
            if number in NODES:
                Lives.free(NODES[number])
        gc.unfreeze()
        self.patch.undo()
        self.quiet.__exit__(None, None, None)

    @staticmethod
    def free(node: Any) -> None:
        try:
            dispose(node)
        except DisposeError:
            return


Lives.TestCase.settings = settings(
    derandomize=True, deadline=None, max_examples=60, stateful_step_count=30
)
TestLives = Lives.TestCase
