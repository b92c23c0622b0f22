from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
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
    BusyError,
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
from llmcore.lifecycle.tree import NODES

from .kit import PATIENCE, Ledger, run_in_thread, until_freed, used_elsewhere

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
        return owner is not None and owner.alive and owner not in self.above


class Lives(RuleBasedStateMachine):
    """Random lives of a tree in one thread, against a model of a few lines."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.things: list[Thing] = []
        self.before = set(NODES)
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
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
        reached = [t for t in self.things if t.alive and self.anchored(t)]
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.unraisablehook", lambda shown: None)  # failing teardowns
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
        self.quiet.__exit__(None, None, None)

    @staticmethod
    def free(node: Any) -> None:
        from llmcore.lifecycle.teardown import dispose

        try:
            dispose(node)
        except DisposeError:
            return


Lives.TestCase.settings = settings(
    derandomize=True, deadline=None, max_examples=60, stateful_step_count=30
)
TestLives = Lives.TestCase


# -- the same in several threads -----------------------------------------------------

Step = tuple[str, int, int]
STEPS = ["create", "use", "dispose", "wait", "poll", "inside", "move", "work", "unused"]
steps = st.tuples(st.sampled_from(STEPS), picks, picks)
FINE = (
    BusyError,
    DisposedError,
    DisposeError,
    DisposeTimeoutError,
    ValueError,  # a move that would make a cycle
)


class Crowd:
    """A tree that several threads work on at once."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.lock = threading.Lock()
        self.count = 0
        self.pool: list[Resource] = []
        for parent in (None, None, 0, 0, 1, 2):
            self.create(None if parent is None else self.pool[parent])

    def create(self, parent: Resource | None) -> None:
        with self.lock:
            self.count += 1
            name = f"c{self.count}"
        exclusion = threading.Lock() if self.count % 3 == 0 else None
        if parent is None:
            made = self.ledger.make(name)
        else:
            with self.ledger.use(parent):  # so that it does not go before its child
                made = self.ledger.make(name, parent, exclusion=exclusion)
        self.pool.append(made)

    def run(self, start: threading.Barrier, program: list[Step]) -> None:
        start.wait(PATIENCE)
        for step in program:
            try:
                self.do(*step)
            except FINE:
                continue

    def do(self, action: str, at: int, other: int) -> None:
        a = self.pool[at % len(self.pool)]
        b = self.pool[other % len(self.pool)]
        if action == "create":
            self.create(a)
        elif action == "use":
            with self.ledger.use(a), self.ledger.use(b):
                pass
        elif action == "dispose":
            a.dispose()
        elif action == "wait":
            a.dispose(inflight="wait")
        elif action == "poll":
            a.dispose(timeout=0)
        elif action == "inside":
            with self.ledger.use(a):
                b.dispose()
        elif action == "move":
            a.move_to(b)
        elif action == "work":
            with Operation(a._node) as work, self.ledger.use(a, work):
                pass
        else:
            with b.lease():
                a.dispose_if_unused()


class TestThreads:
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(st.lists(st.lists(steps, max_size=12), min_size=3, max_size=4))
    def test_any_program(self, programs: list[list[Step]]) -> None:
        """Any steps in any threads end, violate nothing and free everything once."""
        crowd = Crowd()
        start = threading.Barrier(len(programs))
        tasks = [run_in_thread(partial(crowd.run, start, p)) for p in programs]
        for task in tasks:
            task.result()

        def dispose_all() -> None:
            for resource in crowd.pool:
                resource.dispose()

        run_in_thread(dispose_all).result()
        until_freed(*crowd.pool)

        assert not crowd.ledger.violations
        assert sorted(crowd.ledger.freed) == sorted(crowd.ledger.handles)
