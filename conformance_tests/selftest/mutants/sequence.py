"""Mutants of sequence.md."""

from __future__ import annotations

import pytest

from llmcore import Sequence
from llmcore.backends.null.context import NullContext
from llmcore.engine import loop
from llmcore.engine.job import Job
from llmcore.engine.loop import StepLoop
from llmcore.engine.slot import Slot
from llmcore.errors import DecodeError
from llmcore.model import Model
from llmcore.spi import Batch
from mutants import mutant


@mutant(kills="seq.limit")
def hands_out_the_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sequence too many gets the number of the first."""
    take = StepLoop.take_slot
    monkeypatch.setattr(StepLoop, "take_slot", lambda self: take(self) or Slot(0))


@mutant(kills="seq.isolation")
def disturbs_the_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the first sequence shows in what the second one computes."""
    decode = NullContext.decode

    def leak(self, batch):
        decode(self, batch)
        if batch.sequences[0] == 0 and len(self._cells) > 1 and self._cells[1]:
            self._cells[1]._salt += b"!"

    monkeypatch.setattr(NullContext, "decode", leak)


@mutant(kills="seq.reuse")
def leaves_the_old_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is given back with all that its owner left, to be reused."""
    give_back, take = StepLoop.give_back, StepLoop.take_slot

    def keep(self, slot):
        left = [] if self._native.params.embeddings else slot.tokens
        slot.tokens = slot.tokens if left == [] else []
        give_back(self, slot)
        self._left = (slot.number, left)

    def taken(self):
        slot = take(self)
        number, left = getattr(self, "_left", (None, []))
        if slot is not None and slot.number == number:
            slot.tokens = left
        return slot

    monkeypatch.setattr(StepLoop, "give_back", keep)
    monkeypatch.setattr(StepLoop, "take_slot", taken)


@mutant(kills="seq.stale")
def frees_whoever_has_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending a job frees the place, even if its next owner works there."""
    end = Job.end

    def free(self):
        end(self)
        slot = self._interrupt.__self__._taken.get(self.slot.number)
        if slot is not None:
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
        short = len(batch.tokens) == self._params.batch_size and not any(batch.outputs)
        if short:
            batch = Batch(*(column[:-1] for column in batch))
            cells = self._cells[batch.sequences[0]]
            apply(self, batch, limit)
            cells.append(len(cells), 0)
        else:
            apply(self, batch, limit)

    monkeypatch.setattr(NullContext, "_apply", lossy)


@mutant(kills="seq.empty-input")
def refuses_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokens are an error."""
    evaluate = Sequence.evaluate

    def strict(self, tokens):
        tokens = list(tokens)
        if not tokens:
            raise ValueError("there must be tokens")
        evaluate(self, tokens)

    monkeypatch.setattr(Sequence, "evaluate", strict)


@mutant(kills="seq.bad-token")
def checks_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers outside the vocabulary are left to the engine."""
    check = Model.check_tokens

    def lenient(self, tokens):
        if not all(type(token) is int for token in tokens):
            check(self, tokens)

    monkeypatch.setattr(Model, "check_tokens", lenient)


@mutant(kills="seq.truncate")
def keeps_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """truncate() drops one token more than it says."""
    truncate = Sequence.truncate

    def off_by_one(self, length):
        kept = truncate(self, length - 1 if length > 1 else length)
        return length if kept else 0

    monkeypatch.setattr(Sequence, "truncate", off_by_one)


@mutant(kills="seq.fork")
def shares_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is a second name for the same cells."""

    def alias(self, source, target):
        self._cells[target] = self._cells[source]

    monkeypatch.setattr(NullContext, "copy", alias)


@mutant(kills="seq.prefix-equal")
def compares_lengths_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached is taken for the beginning of any prompt."""

    def reusable(cached, prompt):
        return min(len(cached), len(prompt) - 1), "it is as long"

    monkeypatch.setattr(loop, "reusable", reusable)


@mutant(kills="seq.prefix-kept")
def evaluates_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last cached token is always evaluated once more."""
    real = loop.reusable

    def reusable(cached, prompt):
        keep, reason = real(cached, prompt)
        return max(keep - 1, 0), reason

    monkeypatch.setattr(loop, "reusable", reusable)


@mutant(kills="seq.failed-decode")
def never_reconciles(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure core goes on from what it believes."""

    def believe(self, native, slot):
        slot.pending = ()

    monkeypatch.setattr(StepLoop, "_settle", believe)


@mutant(kills="seq.failed-neighbour")
def clears_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed evaluation empties every other sequence of the context."""
    evaluate = Sequence.evaluate

    def wipe(self, tokens):
        try:
            evaluate(self, tokens)
        except DecodeError:
            for number, slot in self._loop._taken.items():
                if slot is not self._slot:
                    with self.context._use() as native:
                        native.clear(number)
                    slot.tokens = []
            raise

    monkeypatch.setattr(Sequence, "evaluate", wipe)
