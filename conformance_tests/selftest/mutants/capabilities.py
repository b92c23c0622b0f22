"""Mutants of capabilities.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from attrs import evolve

from llmcore import Backend, Context, Llama, Model, Sequence
from llmcore.backends.null.context import NullContext
from llmcore.engine.cache import Cache
from llmcore.engine.samplers import Drawer
from llmcore.errors import StateError
from llmcore.testing import NullBackend
from llmcore.values import Capability
from mutants import mutant


@mutant(kills="cap.subset")
def model_claims_more(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Backend]:
    """The plugin forgot to declare what its models can do."""

    class Modest(NullBackend):
        @property
        def info(self):
            info = super().info
            return evolve(info, capabilities=info.capabilities - {Capability.SHIFT})

    return Modest


@mutant(kills="cap.undeclared")
def requires_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing capability is not noticed."""
    monkeypatch.setattr(Model, "require", lambda self, *capabilities: None)


@mutant(kills="cap.undeclared")
def invents_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that the backend does not have are zeros."""
    real = Sequence.logits.fget

    def logits(self):
        model = self.context.model
        if Capability.LOGITS in model.capabilities:
            return real(self)
        return np.zeros(model.info.vocab_size, np.float32)

    monkeypatch.setattr(Sequence, "logits", property(logits))


@mutant(kills="cap.undeclared")
def leaves_log_probabilities_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log probabilities that need missing logits are left out of the answer."""
    create = Drawer.__init__

    def lenient(self, native, samplers, info, params, options, *rest):
        if Capability.LOGITS not in info.capabilities:
            options = evolve(options, logprobs=None)
        create(self, native, samplers, info, params, options, *rest)

    monkeypatch.setattr(Drawer, "__init__", lenient)


@mutant(kills="cap.undeclared")
def falls_back_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers for a GPU that no build declares are loaded all the same."""
    placed = Llama._placed

    def anywhere(self, params):
        wanted = params.gpu_layers not in ("auto", 0)
        if wanted and Capability.GPU not in self.capabilities:
            params = evolve(params, gpu_layers=0)
        return placed(self, params)

    monkeypatch.setattr(Llama, "_placed", anywhere)


@mutant(kills="cap.undeclared")
def takes_layers_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Backend]:
    """The backend can use a GPU, this build of it cannot, and nobody notices."""

    class BuiltWithout(NullBackend):
        @property
        def info(self):
            info = super().info
            return evolve(info, capabilities=info.capabilities | {Capability.GPU})

    return BuiltWithout


@mutant(kills="cap.not-called")
def removes_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core tries to remove a part from any cache."""
    cut = Cache.cut

    def eager(self, native, slot, length):
        if 0 < length < len(slot.tokens) and not self.can_remove:
            native.bounds(slot.number)
            native.remove(slot.number, len(slot.tokens))
        return cut(self, native, slot, length)

    monkeypatch.setattr(Cache, "cut", eager)


@mutant(kills="cap.emulated")
def forks_in_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork without `copy` has the tokens on its list, but not in its cache."""
    copy = Cache.copy

    def pretend(self, native, source, target):
        if not self._can_copy:
            target.tokens = list(source.tokens)
            return True
        return copy(self, native, source, target)

    monkeypatch.setattr(Cache, "copy", pretend)


@mutant(kills="cap.emulated")
def truncates_in_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `partial-remove` only the list is cut."""
    cut = Cache.cut

    def pretend(self, native, slot, length):
        if not self.can_remove and length:
            del slot.tokens[length:]
            return length
        return cut(self, native, slot, length)

    monkeypatch.setattr(Cache, "cut", pretend)


@mutant(kills="cap.logits")
def is_too_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits have 64 bits."""
    logits = NullContext.logits

    def exact(self, row):
        return logits(self, row).astype(np.float64)

    monkeypatch.setattr(NullContext, "logits", exact)


@mutant(kills="cap.logits")
def lends_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """All logits of a sequence are the same array."""
    real = Sequence.logits.fget

    def logits(self):
        fresh = real(self)
        if not hasattr(self, "_lent"):
            self._lent = fresh
        self._lent[:] = fresh
        return self._lent

    monkeypatch.setattr(Sequence, "logits", property(logits))


@mutant(kills="cap.native-sampling")
def seed_zero_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy sampler with the seed 0 is not greedy."""
    create, sample = NullContext.create_sampler, NullContext.sample

    def remember(self, params, seed):
        sampler = create(self, params, seed)
        if sampler is not None:
            sampler.unlucky = seed == 0
        return sampler

    def draw(self, row, sampler):
        token = sample(self, row, sampler)
        return token + 1 if sampler.unlucky else token

    monkeypatch.setattr(NullContext, "create_sampler", remember)
    monkeypatch.setattr(NullContext, "sample", draw)


@mutant(kills="cap.partial-remove")
def only_says_it_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing just one half of a cache succeeds, and nothing was removed."""
    remove = NullContext.remove

    def lie(self, sequence, start, end=None):
        half = end is None and 2 * start == len(self._cells[sequence])
        return half or remove(self, sequence, start, end)

    monkeypatch.setattr(NullContext, "remove", lie)


@mutant(kills="cap.shift")
def shifts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that are to move by two stay where they are."""
    shift = NullContext.shift

    def lazy(self, sequence, start, end, delta):
        if delta != -2:
            shift(self, sequence, start, end, delta)

    monkeypatch.setattr(NullContext, "shift", lazy)


@mutant(kills="cap.abort")
def cannot_be_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Abort is declared and does nothing unless a call waits."""
    decode = NullContext.decode

    def deaf(self, batch):
        self._stop = False
        decode(self, batch)

    monkeypatch.setattr(NullContext, "decode", deaf)


@mutant(kills="state.round-trip")
def saves_all_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved state that is loaded has one token less."""
    load = NullContext.load_state

    def short(self, sequence, data):
        before = len(self._cells[sequence])
        load(self, sequence, data)
        if before > len(self._cells[sequence]):
            self._cells[sequence].remove(len(self._cells[sequence]) - 1, None, False)

    monkeypatch.setattr(NullContext, "load_state", short)


@mutant(kills="state.damaged")
def takes_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that do not fit are taken for an empty state."""
    load = NullContext.load_state

    def lenient(self, sequence, data):
        try:
            load(self, sequence, data)
        except StateError:
            self._cells[sequence].clear()

    monkeypatch.setattr(NullContext, "load_state", lenient)


@mutant(kills="state.owned")
def lends_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is a view into memory that goes with its context."""
    save, close = NullContext.save_state, NullContext.close

    class Lent(bytes):
        def __bytes__(self):
            return self[:] if self.owner in living else bytes(len(self))

    living: set[NullContext] = set()

    def view(self, sequence):
        living.add(self)
        state = Lent(save(self, sequence))
        state.owner = self
        return state

    def wipe(self):
        living.discard(self)
        close(self)

    monkeypatch.setattr(NullContext, "save_state", view)
    monkeypatch.setattr(NullContext, "close", wipe)


@mutant(kills="embed.shape")
def vectors_differ_in_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts have short vectors."""
    embedding = NullContext.embedding

    def ragged(self, sequence):
        return embedding(self, sequence)[: len(self._cells[sequence])]

    monkeypatch.setattr(NullContext, "embedding", ragged)


@mutant(kills="embed.repeatable")
def remembers_the_last_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector has something of the one before it."""
    embedding = NullContext.embedding

    def mixed(self, sequence):
        vector = embedding(self, sequence)
        before, self._vector = getattr(self, "_vector", 0), vector
        return vector + before

    monkeypatch.setattr(NullContext, "embedding", mixed)


@mutant(kills="embed.context")
def embeds_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context for generation returns zeros."""
    embed = Context.embed

    def zeros(self, text):
        if self.params.embeddings:
            return embed(self, text)
        self._check()
        return np.zeros(self.model.info.embedding_size, np.float32)

    monkeypatch.setattr(Context, "embed", zeros)
