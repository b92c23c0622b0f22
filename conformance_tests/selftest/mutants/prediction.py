"""Mutants of prediction.md."""

from __future__ import annotations

import zlib

import pytest

from llmcore.backends.null import language
from llmcore.backends.null.context import NullContext
from llmcore.engine import step
from llmcore.engine.generation import Generation
from llmcore.engine.receipt import Receipt
from llmcore.engine.scheduling import Parallel
from llmcore.values import evolve
from mutants import mutant


def round_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A right engine, but one whose results depend on the shape of a batch, as all fast
    ones' do; in deterministic contexts only, where core may not let it show.
    """
    apply = NullContext._apply

    def rounded(self, batch, limit):
        apply(self, batch, limit)
        if self._params.deterministic:
            shape = f"{len(batch.tokens)} {sorted(set(batch.sequences))}".encode()
            for row, (seed, _) in self._rows.items():
                seed ^= zlib.crc32(shape)
                self._rows[row] = seed, language.next_token(seed, (), None)

    monkeypatch.setattr(NullContext, "_apply", rounded)


@mutant(kills="predict.same")
def believes_the_first_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first guess of each row is taken, whatever the model says."""
    draw = Generation._draw

    def trusting(self, native, row):
        token = draw(self, native, row)
        return self.tokens[1] if len(self.tokens) == self.rows > 1 else token

    monkeypatch.setattr(Generation, "_draw", trusting)


@mutant(kills="predict.truth")
def leaves_the_last_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was guessed beyond the end of an answer stays in the cache."""
    settle = Generation.settle

    def lazy(self, native, cache):
        if self.result is not None:
            self._valid = len(self.job.slot.tokens)
        settle(self, native, cache)

    monkeypatch.setattr(Generation, "settle", lazy)


@mutant(kills="predict.error")
def wraps_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a predictor raises comes out as another error."""
    think = Generation.think

    def wrapped(self):
        try:
            think(self)
        except Exception as error:
            raise RuntimeError("the predictor failed") from error

    monkeypatch.setattr(Generation, "think", wrapped)


@mutant(kills="det.alone")
def batches_with_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deterministic context is scheduled as any other."""
    round_by_shape(monkeypatch)
    policy_for = step.policy_for

    def parallel(params):
        return Parallel() if params.deterministic else policy_for(params)

    monkeypatch.setattr(step, "policy_for", parallel)


@mutant(kills="det.alone")
def reuses_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deterministic context keeps what it can of a used sequence."""
    round_by_shape(monkeypatch)
    begin = Generation._begin

    def lazy(self, native, cache):
        params = self.engine.params
        self.engine.params = evolve(params, deterministic=False)
        try:
            begin(self, native, cache)
        finally:
            self.engine.params = params

    monkeypatch.setattr(Generation, "_begin", lazy)


@mutant(kills="det.receipt")
def forgets_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt that was text has another seed."""
    read = Receipt.from_json

    def other(text):
        receipt = read(text)
        sampling = receipt.sampling
        seed = None if sampling.seed is None else sampling.seed + 1
        return evolve(receipt, sampling=evolve(sampling, seed=seed))

    monkeypatch.setattr(Receipt, "from_json", other)


@mutant(kills="det.receipt-mismatch")
def checks_no_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt is replayed wherever it is shown."""
    monkeypatch.setattr(Receipt, "check", lambda self, info, params: None)
