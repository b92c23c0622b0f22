"""Mutants of errors.md."""

from __future__ import annotations

import pytest

import llmcore.context
import llmcore.seam
from llmcore import Sequence
from llmcore.engine.engine import Engine
from llmcore.engine.job import Job
from llmcore.engine.loop import BatchLoop
from llmcore.errors import (
    BackendError,
    InsufficientMemoryError,
    NoSequenceLeftError,
    OperationCancelledError,
)
from llmcore.seam import Translator
from mutants import mutant


@mutant(kills="error.mapped")
def drops_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign exception becomes a line of text."""
    translate = Translator.__call__

    def forgetful(self, error):
        try:
            translate(self, error)
        except BackendError as mapped:
            raise BackendError(str(mapped)) from None

    monkeypatch.setattr(Translator, "__call__", forgetful)


@mutant(kills="error.own-kept")
def wraps_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lack of memory during an evaluation is reported as an error of the engine."""
    seen = BatchLoop._as_seen_by

    def wrap(self, job, error):
        if isinstance(error, InsufficientMemoryError):
            return BackendError("the engine failed")
        return seen(self, job, error)

    monkeypatch.setattr(BatchLoop, "_as_seen_by", wrap)


@mutant(kills="error.crashed")
def goes_on_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that died is called again."""
    monkeypatch.setattr(llmcore.seam, "break_all", lambda root, cause: None)


@mutant(kills="error.all-or-nothing")
def keeps_what_it_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the batches that succeeded stay."""
    evaluate = Sequence.evaluate

    def sticky(self, tokens):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Engine, "truncate", lambda *args: 0)
            evaluate(self, tokens)

    monkeypatch.setattr(Sequence, "evaluate", sticky)


@mutant(kills="error.named")
def says_only_that_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not say which context it is about."""

    def terse(message):
        return NoSequenceLeftError("no sequence left")

    monkeypatch.setattr(llmcore.context, "NoSequenceLeftError", terse)


@mutant(kills="error.named")
def says_only_that_it_was_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not say whose work was cancelled."""
    check = Job.check

    def terse(self):
        try:
            check(self)
        except OperationCancelledError:
            raise OperationCancelledError("cancelled") from None

    monkeypatch.setattr(Job, "check", terse)


@mutant(kills="error.typed")
def asserts_what_users_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty prompt trips over an assertion inside."""
    generate = Sequence.generate

    def careless(self, tokens, *args, **options):
        tokens = list(tokens)
        assert tokens, "no tokens"
        return generate(self, tokens, *args, **options)

    monkeypatch.setattr(Sequence, "generate", careless)
