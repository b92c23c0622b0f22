"""Mutants of manager.md: many models under one budget."""

from __future__ import annotations

import threading

import pytest
from attrs import evolve

from llmcore.manager import ModelManager, keeper, serving
from llmcore.manager.admission import Admission
from llmcore.manager.direct import Direct
from llmcore.manager.entry import Entry
from llmcore.manager.keeper import Keeper
from llmcore.manager.loading import Loader
from llmcore.manager.options import LoadOptions
from llmcore.manager.server import Server
from llmcore.manager.table import Table
from mutants import mutant

Patch = pytest.MonkeyPatch

LONG = 1e6  # seconds


@mutant(kills="manager.ready")
def lists_what_was_never_asked_as_loading(patch: Patch) -> None:
    """The list says of a model that it is loading until its first request is over."""
    right = ModelManager.list

    def found(self):
        return [
            info if info["accepted_requests"] else {**info, "status": "loading"}
            for info in right(self)
        ]

    patch.setattr(ModelManager, "list", found)


@mutant(kills="manager.same-id")
def takes_an_id_twice(patch: Patch) -> None:
    """The model that was loaded last has the id."""

    def add(self, entry):
        self._entries[entry.id] = entry

    patch.setattr(Table, "add", add)


@mutant(kills="manager.failed-load")
def keeps_the_engine_that_failed(patch: Patch) -> None:
    """The engine of a model that could not be loaded stays until the manager goes."""
    right = Entry.dispose_engine

    def dispose_engine(self, timeout=None):
        given_up = self.cancelled or self.crashes
        if given_up or self.status != "loading":
            right(self, timeout)

    patch.setattr(Entry, "dispose_engine", dispose_engine)


@mutant(kills="manager.look-ups")
def holds_a_lock_while_it_loads(patch: Patch) -> None:
    """A load holds a lock that whoever asks for a ready model needs."""
    load, get, lock = Loader._load, Table.get, threading.RLock()

    def locked(self, llama, hold):
        with lock:
            load(self, llama, hold)

    def waits(self, id):
        entry = get(self, id)
        if entry.status == "ready":
            with lock:
                pass
        return entry

    patch.setattr(Loader, "_load", locked)
    patch.setattr(Table, "get", waits)


@mutant(kills="manager.loading")
def waits_for_the_load(patch: Patch) -> None:
    """A request for a model that is loading waits until it is loaded."""
    right = Table.ready

    def ready(self, id):
        self.get(id).settled.wait()
        return right(self, id)

    patch.setattr(Table, "ready", ready)


@mutant(kills="manager.cancel-load")
def lets_a_load_go_on(patch: Patch) -> None:
    """The load is forgotten, and goes on in the background."""
    right = Keeper.unload

    def unload(self, entry, inflight, timeout):
        if entry.status == "loading":
            self.table.remove(entry)
        else:
            right(self, entry, inflight, timeout)

    patch.setattr(Keeper, "unload", unload)


@mutant(kills="manager.server-embeds")
def finds_out_later(patch: Patch) -> None:
    """Whether a server can embed is left to its first request."""
    patch.setattr(LoadOptions, "__attrs_post_init__", lambda self: None)


@mutant(kills="manager.unknown-id")
def takes_the_next_best(patch: Patch) -> None:
    """An id that is unknown is taken for the only one there is."""
    right = Table.get

    def get(self, id):
        entries = self.all()
        if len(entries) == 1 and isinstance(id, str):
            return entries[0]
        return right(self, id)

    patch.setattr(Table, "get", get)


@mutant(kills="manager.default")
def hands_the_default_on(patch: Patch) -> None:
    """When the default is unloaded, another model becomes it."""
    right = Table.remove

    def remove(self, entry):
        was = self.default
        right(self, entry)
        if was is not None and self.default is None:
            self.default = next(iter(self._entries), None)

    patch.setattr(Table, "remove", remove)


@mutant(kills="manager.capability")
def does_what_it_can(patch: Patch) -> None:
    """What can generate can chat, whatever it was loaded for."""
    right = serving.accepted
    instead = {"chat": "generate"}
    patch.setattr(
        serving,
        "accepted",
        lambda keeper, id, capability: right(
            keeper, id, instead.get(capability, capability)
        ),
    )


@mutant(kills="manager.embed")
def makes_vectors_of_length_one(patch: Patch) -> None:
    """Vectors are normalised on their way."""
    right = Direct.embed

    def embed(self, text, timeout):
        vector = right(self, text, timeout)
        length = sum(value * value for value in vector) ** 0.5
        return [value / length / 2 for value in vector]

    patch.setattr(Direct, "embed", embed)


@mutant(kills="manager.queue-length")
def has_an_endless_queue(patch: Patch) -> None:
    """As many requests as like may wait."""
    right = Server.__init__
    patch.setattr(
        Server, "__init__", lambda self, context, _: right(self, context, 10**6)
    )


@mutant(kills="manager.queue-time")
def waits_for_ever_in_the_queue(patch: Patch) -> None:
    """Nobody looks how long a request has waited."""
    right = Server._wait
    patch.setattr(
        Server,
        "_wait",
        lambda self, tokens, deadline, timeout: right(
            self, tokens, deadline + LONG, timeout
        ),
    )


@mutant(kills="manager.parallel")
def looks_and_does_not_reserve(patch: Patch) -> None:
    """Room is looked for before a load, and taken after it."""
    right = Admission.reserve

    def reserve(self, *args):
        hold = right(self, *args)
        hold.release()
        return hold

    patch.setattr(Admission, "reserve", reserve)


@mutant(kills="manager.refuse")
def evicts_all_the_same(patch: Patch) -> None:
    """The policy ``"refuse"`` is taken for ``"evict"``."""
    right = Admission.__init__

    def create(self, budget, policy, *rest):
        right(self, budget, "evict", *rest)

    patch.setattr(Admission, "__init__", create)


@mutant(kills="manager.in-use")
def evicts_under_a_request(patch: Patch) -> None:
    """Where all are in use, those go that only requests hold."""
    victims, evict = Admission._victims, Keeper.evict

    def victims_in_use(self, shortage, entry):
        found = victims(self, shortage, entry)
        if found != []:
            return found
        return [other for other in self._entries() if other.requests]

    def evict_all_the_same(self, entry, idle=0.0):
        if entry.requests:
            entry.dispose_engine()
            self._forget(entry)
            return True
        return evict(self, entry, idle)

    patch.setattr(Admission, "_victims", victims_in_use)
    patch.setattr(Keeper, "evict", evict_all_the_same)


@mutant(kills="manager.pinned")
def knows_no_pins(patch: Patch) -> None:
    """That a model is pinned is forgotten."""
    right = LoadOptions.parse
    patch.setattr(
        LoadOptions, "parse", lambda options: evolve(right(options), pin=False)
    )


@mutant(kills="manager.longest-unused")
def evicts_by_the_last_request(patch: Patch) -> None:
    """The use of a model counts from the beginning of its last request."""
    begun = {}

    class Remembers(set):
        def add(self, request):
            begun[id(self)] = len(begun)
            super().add(request)

    create = Entry.__init__

    def made(self, *args):
        create(self, *args)
        self.requests = Remembers()

    patch.setattr(Entry, "__init__", made)
    patch.setattr(
        Entry, "idle_since", property(lambda self: begun.get(id(self.requests), -1))
    )


@mutant(kills="manager.fewest")
def goes_by_age_alone(patch: Patch) -> None:
    """One after the other goes, the longest unused first, until there is room."""

    def fewest(self, shortage, idle):
        victims = []
        for other in sorted(idle, key=lambda entry: entry.idle_since):
            victims.append(other)
            if self._enough(shortage, victims):
                break
        return victims

    patch.setattr(Admission, "_fewest", fewest)


@mutant(kills="manager.too-large")
def evicts_in_vain(patch: Patch) -> None:
    """It evicts whatever it can before it sees that this is not enough."""
    right = Admission._victims

    def victims(self, shortage, entry):
        found = right(self, shortage, entry)
        if found is not None:
            return found
        return [
            other
            for other in self._entries()
            if other.status == "ready" and not other.options.pin and not other.in_use
        ] or None

    patch.setattr(Admission, "_victims", victims)


@mutant(kills="manager.room-time")
def waits_for_ever_for_room(patch: Patch) -> None:
    """Nobody looks how long a load has waited for room."""
    right = Admission.reserve
    patch.setattr(
        Admission,
        "reserve",
        lambda self, footprint, entry, deadline: right(
            self, footprint, entry, deadline + LONG
        ),
    )


@mutant(kills="manager.drain")
def drains_nothing(patch: Patch) -> None:
    """An unload cancels what runs, also if it is to drain."""
    patch.setattr(Keeper, "_drain", lambda *_: None)


@mutant(kills="manager.drain-time")
def drains_for_ever(patch: Patch) -> None:
    """A drain has no end before that of the last request."""
    right = Keeper._drain
    patch.setattr(
        Keeper,
        "_drain",
        lambda self, entry, deadline: right(self, entry, deadline + LONG),
    )


@mutant(kills="manager.cancel")
def always_drains(patch: Patch) -> None:
    """An unload drains, also if it is to cancel."""
    right = Keeper.unload
    patch.setattr(
        Keeper,
        "unload",
        lambda self, entry, inflight, timeout: right(self, entry, "drain", timeout),
    )


@mutant(kills="manager.frees")
def frees_some_time_later(patch: Patch) -> None:
    """An unload of an idle model returns and frees the engine in the background."""
    dispose = Entry.dispose_engine

    def dispose_engine(self, timeout=None):
        if self.status != "unloading" or self.requests:
            dispose(self, timeout)
            return
        timer = threading.Timer(1.0, self.llama.dispose)
        timer.daemon = True
        timer.start()

    patch.setattr(Entry, "dispose_engine", dispose_engine)


@mutant(kills="manager.crash")
def starts_all_over(patch: Patch) -> None:
    """When an engine crashes, those of the other models are stopped as well."""
    right = Keeper.look_after

    def look_after(self, entry):
        for other in self.table.all():
            if other is not entry and other.llama is not None:
                other.llama.dispose()
        right(self, entry)

    patch.setattr(Keeper, "look_after", look_after)


@mutant(kills="manager.restart")
def gives_up_at_once(patch: Patch) -> None:
    """A model whose engine crashed stays as it is."""
    patch.setattr(keeper, "_why_not_again", lambda entry: "its engine crashed")
