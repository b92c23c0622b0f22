"""
The leak detective: `leak_check` finds what a piece of code did not give back.

    with leak_check():
        ...                     # LeakError names each object, its maker, its holder
"""

from __future__ import annotations

import gc
import linecache
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import define

from llmcore.lifecycle import Node, Resource, State, collect_forgotten, observe
from llmcore.lifecycle.monitor import TREE
from llmcore.lifecycle.tracking import creation_stack
from llmcore.lifecycle.tree import NODES
from llmcore.memory import size_text
from llmcore.testing.holders import holders
from llmcore.testing.leak_error import Kind, Leak, LeakError
from llmcore.testing.leak_growth import growth, used_memory

if TYPE_CHECKING:
    from llmcore.llama import Llama

CALLS = 6
"""Calls shown of the stack that made an object."""

EXPLAINED = 5
"""Objects for which the holders are looked for, which takes a while for each."""

PATIENCE = 10.0
"""Seconds for disposals that still run in another thread."""

_RUNNERS = ("_pytest", "pluggy", "threading", "unittest")


@define(eq=False)
class _Made:
    """A resource that was made under the check."""

    node: Node
    calls: tuple[tuple[str, int, str], ...]
    resource: weakref.ref[Any]

    def report(self, kind: Kind, problem: str, *, explain: bool = False) -> Leak:
        """The leak in words, with its maker, and with its holders if asked for."""
        lines = [f"{self.node.label} {problem}"]
        verb = "made at"
        for file, line, function in self.calls:
            source = linecache.getline(file, line).strip()
            lines.append(f"  {verb} {file}:{line} in {function}: {source}")
            verb = "called at"
        if explain:
            lines += [f"  held by {words}" for words in self._holders()]
        return Leak(
            kind=kind,
            what=self.node.label,
            text="\n".join(lines),
            created_at=self.node.site,
        )

    def _holders(self) -> list[str]:
        owner, number = self.node.owner, self.node.number
        owned = owner is not None and number in owner.owned
        resource = self.resource()
        found = [] if resource is None else holders(resource)
        return [f"{owner.label}, which owns it"] if owner and owned else found


@define(eq=False)
class _Engine:
    """A backend that was seen under the check, and what it had open at first."""

    node: Node
    backend: object
    before: Mapping[str, int]

    def surplus(self) -> dict[str, int]:
        """What it has open and should not: kinds and counts."""
        now = open_handles(self.backend)
        if self.node.number not in NODES:
            return {kind: count for kind, count in now.items() if count}
        # What a sequence needs for itself, such as a sampler, may come and go.
        more = {kind: now.get(kind, 0) - self.before.get(kind, 0) for kind in _MADE}
        return {kind: count for kind, count in more.items() if count > 0}


_MADE = ("model", "context")
_TOLD = State.LIVE, State.BROKEN, State.DISPOSING
_checks: list[LeakCheck] = []


def leak_check(*, memory: int | None = None, llama: Llama | None = None) -> LeakCheck:
    """
    A block that must give back all that it makes, in whatever thread.

    At its end everything made in it has to be disposed and freed: what is still held
    is a leak, and so is what was only dropped, even if the collector freed it. A
    disposal that still runs is waited for. While it lasts each creation costs some
    microseconds more, for the stack.

    Args:
        memory: Bytes that the process may use more afterwards, of RAM or of a GPU;
            None does not look. For anything subtle `growth` is better: a first use
            loads libraries and fills caches.

        llama: An instance that outlives the block, for the memory of its GPUs.

    Raises:
        LeakError: Something leaked. If the block itself raised, that stays the error,
            and what leaked is a note on it.
    """
    return LeakCheck(memory, llama)


class LeakCheck:
    """
    Made by `leak_check`; watches from the beginning of its ``with`` block to the end.

    Blocks may be nested or run in several threads at once; each sees everything.
    """

    growth = staticmethod(growth)

    def __init__(self, memory: int | None, llama: Llama | None) -> None:
        self._memory = memory
        self._llama = llama
        self._used: tuple[int, int] = (0, 0)
        self._made: dict[int, _Made] = {}
        self._forgotten: list[_Made] = []
        self._engines: list[_Engine] = []
        self._allowed: set[int] = set()

    def allow(self, *resources: Resource) -> None:
        """Let some objects live on, such as `llmcore.default_llama`."""
        self._allowed.update(resource._node.number for resource in resources)

    def __enter__(self) -> Self:
        if self._memory is not None:
            self._used = used_memory(self._llama)
        with TREE:
            llamas = [(n, n.handle) for n in NODES.values() if n.kind == "llama"]
        self._engines = [_Engine(n, b, open_handles(b)) for n, b in llamas]
        _checks.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        leaks = self._end()
        if leaks and error is None:
            raise LeakError(leaks)
        if leaks and isinstance(error, Exception):
            error.add_note(str(LeakError(leaks)))

    # -- watching ----------------------------------------------------------------------

    def _tell(self, step: str, node: Node) -> None:
        if step != "created":
            self._made.pop(node.number, None)
            return
        found = node.finalizer.peek()
        if found is None:
            return
        # Called before the finalizer of core, so that the state is still as it was.
        resource = weakref.ref(found[0], partial(self._collected, node.number))
        stack = creation_stack(CALLS, _RUNNERS)
        self._made[node.number] = _Made(node, stack, resource)
        if node.kind == "llama":
            self._engines.append(_Engine(node, node.handle, {}))

    def _collected(self, number: int, _: object) -> None:
        made = self._made.get(number)
        if made is not None and made.node.state in (State.LIVE, State.BROKEN):
            self._forgotten.append(made)

    # -- the end -----------------------------------------------------------------------

    def _end(self) -> list[Leak]:
        """Stop watching; what leaked."""
        try:
            if self._made:
                gc.collect()
            collect_forgotten()
            with TREE:
                TREE.wait_for(lambda: not self._left(State.DISPOSING), PATIENCE)
        finally:
            _checks.remove(self)
        leaks = [*self._objects(), *self._handles()]
        self._made.clear()
        self._engines.clear()
        return [*leaks, *self._bytes()]

    def _left(self, *states: State) -> list[_Made]:
        """What is not freed and in one of some states."""
        return [
            made
            for number, made in list(self._made.items())
            if number in NODES and made.node.state in states
        ]

    def _objects(self) -> Iterator[Leak]:
        for made in sorted(self._forgotten, key=lambda made: made.node.number):
            yield made.report(
                "forgotten",
                "was forgotten: nobody refers to it any more, and only the garbage "
                "collector gives its memory back; use `with` or call dispose()",
            )
        held = self._left(State.LIVE, State.BROKEN)
        held = [made for made in held if made.node.number not in self._allowed]
        for rank, made in enumerate(held):
            yield made.report(
                "held",
                f"is {made.node.state.value} and was never disposed; use `with` or "
                "call dispose()",
                explain=rank < EXPLAINED,
            )
        for made in self._left(State.DISPOSING):
            yield made.report(
                "in use",
                "was disposed but cannot be freed: a thread is still inside a call of "
                "the engine, or has not ended its use; end that thread's work first",
            )

    def _handles(self) -> Iterator[Leak]:
        lost = [made.node for made in self._left(*_TOLD)]
        for engine in self._engines:
            surplus = engine.surplus()
            if surplus and not any(node.depends_on(engine.node) for node in lost):
                what = ", ".join(f"{n} {kind}" for kind, n in surplus.items())
                yield Leak(
                    kind="handle",
                    what=engine.node.label,
                    text=f"the engine of {engine.node.label} still has open: {what}; "
                    "nothing of llmcore stands for that any more, so its backend did "
                    "not close what it made",
                )

    def _bytes(self) -> Iterator[Leak]:
        if self._memory is None:
            return
        now = used_memory(self._llama)
        names = "RAM", "GPU memory"
        for name, before, after in zip(names, self._used, now, strict=True):
            if after - before > self._memory:
                yield Leak(
                    kind="memory",
                    what=name,
                    text=f"{name} in use grew by {size_text(after - before)}, and may "
                    f"by {size_text(self._memory)}; see `growth` whether it does so "
                    "each time",
                )


def open_handles(backend: object) -> dict[str, int]:
    """
    What a backend says that it has open: kinds of native objects and their counts.

    It says so by a mapping ``live``, its own or that of its ``ledger``.
    """
    for speaker in (backend, getattr(backend, "ledger", None)):
        live = getattr(speaker, "live", None)
        if isinstance(live, Mapping):
            return dict(live)
    return {}


def _tell_checks(step: str, node: Node) -> None:
    for check in list(_checks):
        check._tell(step, node)


observe(_tell_checks)
