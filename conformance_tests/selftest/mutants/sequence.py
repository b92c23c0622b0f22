"""Mutants of sequence.md: of its first part, see `mutants.reuse` for the others."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from llmcore import Context, Sequence
from llmcore.backends.null.context import NullContext
from llmcore.engine import cache
from llmcore.engine.cache import Cache
from llmcore.engine.engine import Engine
from llmcore.engine.job import Job
from llmcore.engine.pieces import Pieces
from llmcore.engine.slot import Slot
from llmcore.engine.slots import SlotPool
from llmcore.errors import DecodeError, NoSequenceLeftError
from llmcore.spi import Batch
from mutants import mutant


@mutant(kills="seq.limit")
def hands_out_the_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sequence too many gets the number of the first."""
    get = Context.get_sequence

    def too_many(self, *, wait=False, timeout=None):
        try:
            return get(self, wait=wait, timeout=timeout)
        except NoSequenceLeftError:
            return Sequence(self, Slot(0))

    monkeypatch.setattr(Context, "get_sequence", too_many)


@mutant(kills="seq.isolation")
def disturbs_the_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the first sequence shows in what a long second one computes."""
    decode = NullContext.decode

    def leak(self, batch):
        decode(self, batch)
        if batch.sequences[0] == 0 and len(self._cells) == 2:
            second = self._cells[1]
            second._salt += b"!" if len(second) in range(30, 90) else b""

    monkeypatch.setattr(NullContext, "decode", leak)


@mutant(kills="seq.reuse")
def leaves_the_old_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is given back with all that its owner left, to be reused."""
    give_back, take = Engine.give_back, SlotPool.take

    def keep(self, slot):
        left = [] if self.params.embeddings else slot.tokens
        slot.tokens = slot.tokens if left == [] else []
        give_back(self, slot)
        self.slots._left = (slot.number, left)

    def taken(self):
        slot = take(self)
        number, left = getattr(self, "_left", (None, []))
        if slot is not None and slot.number == number:
            slot.tokens = left
        return slot

    monkeypatch.setattr(Engine, "give_back", keep)
    monkeypatch.setattr(SlotPool, "take", taken)


@mutant(kills="seq.stale")
def frees_whoever_has_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending a job frees the place, even if its next owner works there."""
    end = Job.end

    def free(self):
        end(self)
        slots = self._changed.__self__._stepper._slots
        slot = slots._taken.get(self.slot.number)
        if slot is not None and slot is not self.slot:
            slot.user = None

    monkeypatch.setattr(Job, "end", free)


@mutant(kills="seq.truth")
def counts_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The position is that of the token to come, and one more."""

    def position(self):
        return len(self.tokens) + bool(self.tokens)

    monkeypatch.setattr(Sequence, "position", property(position))


@mutant(kills="seq.long-input")
def loses_the_end_of_a_full_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is exactly full is evaluated without its last token."""
    apply = NullContext._apply

    def lossy(self, batch, limit):
        size = self._params.batch_size
        if len(batch.tokens) == size == 8 and not any(batch.outputs):
            batch = Batch(*(column[:-1] for column in batch))
            cells = self._cells[batch.sequences[0]]
            apply(self, batch, limit)
            cells.append(len(cells), 0)
        else:
            apply(self, batch, limit)

    monkeypatch.setattr(NullContext, "_apply", lossy)


@mutant(kills="seq.empty-input")
def refuses_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokens in an empty sequence are an error."""
    evaluate = Sequence.evaluate

    def strict(self, tokens):
        tokens = list(tokens)
        if not tokens and not self.tokens:
            raise ValueError("there must be tokens")
        evaluate(self, tokens)

    monkeypatch.setattr(Sequence, "evaluate", strict)


@mutant(kills="seq.bad-token")
def checks_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers outside the vocabulary are left to the engine."""
    check = Pieces.check

    def lenient(self, tokens):
        if not all(type(token) is int for token in tokens):
            check(self, tokens)

    monkeypatch.setattr(Pieces, "check", lenient)


@mutant(kills="seq.truncate")
def keeps_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """truncate() drops one token more than it says, of a short sequence."""
    truncate = Sequence.truncate

    def off_by_one(self, length):
        inner = 1 < length < self.position < 32
        kept = truncate(self, length - 1 if inner else length)
        return length if kept else 0

    monkeypatch.setattr(Sequence, "truncate", off_by_one)


@mutant(kills="seq.fork", also={"seq.fork-state": "the two draw from the same cells"})
def shares_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is a second name for the same cells."""

    def alias(self, source, target):
        self._cells[target] = self._cells[source]

    monkeypatch.setattr(NullContext, "copy", alias)


@mutant(kills="seq.prefix-equal")
def overlooks_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token that differs is kept too."""
    real = cache.plan_reuse

    def plan(cached, prompt, *, move=False):
        found = real(cached, prompt, move=move)
        inner = 0 < found.matched < min(len(cached), len(prompt) - 1)
        inner = inner and not found.moved
        return found._replace(matched=found.matched + inner)

    monkeypatch.setattr(cache, "plan_reuse", plan)


@mutant(kills="seq.prefix-kept")
def evaluates_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last cached token is evaluated once more where a few others follow it."""
    real = cache.plan_reuse

    def plan(cached, prompt, *, move=False):
        found = real(cached, prompt, move=move)
        few = 0 < found.matched == len(cached) > len(prompt) - 8
        return found._replace(matched=found.matched - few)

    monkeypatch.setattr(cache, "plan_reuse", plan)


@mutant(kills="seq.failed-decode")
def never_reconciles(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure core goes on from what it believes."""

    def believe(self, native, slot):
        slot.pending = ()

    monkeypatch.setattr(Cache, "settle", believe)


@mutant(kills="seq.failed-neighbour")
def clears_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed evaluation empties every other sequence of the context."""
    evaluate = Sequence.evaluate

    def wipe(self, tokens):
        try:
            evaluate(self, tokens)
        except DecodeError:
            for slot in self._engine.slots.taken:
                if slot is not self._slot:
                    with self.context._use() as native:
                        self._engine.cache.clear(native, slot)
            raise

    monkeypatch.setattr(Sequence, "evaluate", wipe)


# -- going back ------------------------------------------------------------------------


@mutant(kills="seq.fork-state")
def forgets_the_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork begins its random numbers anew."""
    fork = Sequence.fork

    def anew(self):
        twin = fork(self)
        twin._sampler = None
        return twin

    monkeypatch.setattr(Sequence, "fork", anew)


@mutant(kills="seq.fork-state")
def shares_the_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork draws from the same random numbers as its original."""
    fork = Sequence.fork

    def shared(self):
        twin = fork(self)
        twin._sampler = self._sampler
        return twin

    monkeypatch.setattr(Sequence, "fork", shared)


@mutant(kills="seq.transaction")
def only_cuts_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added is cut off, and what was truncated stays away."""

    @contextmanager
    def transaction(self):
        before = self.position
        try:
            yield self
        except BaseException:
            self.truncate(min(before, self.position))
            raise

    monkeypatch.setattr(Sequence, "transaction", transaction)


@mutant(kills="seq.transaction")
def undoes_errors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, which is no `Exception`, leaves half of a block."""
    real = Sequence.transaction

    @contextmanager
    def transaction(self):
        interrupted = None
        with real(self):
            try:
                yield self
            except Exception:
                raise
            except BaseException as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    monkeypatch.setattr(Sequence, "transaction", transaction)


@mutant(kills="seq.transaction-ok")
def undoes_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is undone however it ends."""

    @contextmanager
    def transaction(self):
        tokens = self.tokens
        try:
            yield self
        finally:
            self.clear()
            self.evaluate(tokens)

    monkeypatch.setattr(Sequence, "transaction", transaction)
