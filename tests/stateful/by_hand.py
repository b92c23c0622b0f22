"""
Sequences by hand: taken and left, evaluated, truncated, forked, saved.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from llmcore.errors import (
    BusyError,
    ContextOverflowError,
    NoSequenceLeftError,
    OperationTimeoutError,
    SequenceBusyError,
)

from .model import Line, Model, picks, prompts


class ByHand(Model):
    """What a program does with a sequence without an answer."""

    # -- taking and leaving sequences ------------------------------------------------

    @rule(at=picks)
    def take(self, at: int) -> None:
        place = self.places[at % len(self.places)]
        if len(place.lines) < self.bench.params["sequences"]:
            place.lines.append(Line(place, place.context.get_sequence()))
            return
        with pytest.raises(NoSequenceLeftError):
            place.context.get_sequence()
        with pytest.raises(OperationTimeoutError):
            place.context.get_sequence(wait=True, timeout=0)

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def dispose_sequence(self, at: int) -> None:
        line, sequence = self.pick(at)
        sequence.dispose()
        self.gone(line)
        line.place.lines.remove(line)

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def drop_sequence(self, at: int) -> None:
        line = self.pick(at)[0]
        line.sequence = None
        self.free_if_forgotten(line)

    # -- by hand ---------------------------------------------------------------------

    @precondition(lambda self: self.usable)
    @rule(at=picks, numbers=prompts)
    def evaluate(self, at: int, numbers: list[int]) -> None:
        line, sequence = self.pick(at)
        more = self.tokens(numbers)
        if line.answers:
            with pytest.raises(SequenceBusyError):
                sequence.evaluate(more)
            return
        before = self.learn(line)
        if len(before) + len(more) > sequence.size:
            with pytest.raises(ContextOverflowError):
                sequence.evaluate(more)
        else:
            sequence.evaluate(more)
            line.tokens = [*before, *more]
        self.learn(line)

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def sample_by_hand(self, at: int) -> None:
        """`evaluate` and `sample` draw what `generate` draws."""
        line, sequence = self.pick(at)
        if line.answers or len(self.learn(line)) + 1 > sequence.size:
            return
        sequence.evaluate([self.bench.alphabet[0]])
        line.tokens = sequence.tokens
        token = sequence.sample(temperature=0.0)
        if self.bench.exact and not self.bench.params.get("deterministic"):
            settings = {"temperature": 0.0, "max_tokens": 1}
            assert (token,) == self.bench.right(line.tokens, settings).tokens

    @precondition(lambda self: self.usable)
    @rule(at=picks, length=picks)
    def truncate(self, at: int, length: int) -> None:
        line, sequence = self.pick(at)
        if line.answers:
            with pytest.raises(SequenceBusyError):
                sequence.truncate(0)
            return
        before = self.learn(line)
        length %= len(before) + 1
        kept = sequence.truncate(length)
        assert kept <= length
        assert kept == length or not self.bench.full
        line.tokens = before[:kept]
        self.learn(line)

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def fork(self, at: int) -> None:
        line, sequence = self.pick(at)
        place = line.place
        if line.answers:
            with pytest.raises(SequenceBusyError):
                sequence.fork()
            return
        before = self.learn(line)
        if len(place.lines) == self.bench.params["sequences"]:
            with pytest.raises(NoSequenceLeftError):
                sequence.fork()
        else:
            place.lines.append(Line(place, sequence.fork(), list(before)))
            self.learn(place.lines[-1])
        self.learn(line)

    @precondition(lambda self: self.usable)
    @rule(at=picks, numbers=prompts, cut=picks, generate=st.booleans())
    def transaction(
        self, at: int, numbers: list[int], cut: int, generate: bool
    ) -> None:
        """What happened in a block that fails is undone."""
        line, sequence = self.pick(at)
        if line.answers:
            return
        before = self.learn(line)
        with pytest.raises(ZeroDivisionError), sequence.transaction():
            with suppress(ContextOverflowError):
                sequence.evaluate(self.tokens(numbers))
            sequence.truncate(cut % (sequence.position + 1))
            if generate:
                prompt = self.tokens([*numbers, 0])
                sequence.generate(prompt, max_tokens=3, temperature=0.0).result  # noqa: B018
            raise ZeroDivisionError
        line.tokens = before
        self.learn(line)

    @rule(at=picks, data=st.booleans())
    def clear_context(self, at: int, data: bool) -> None:
        place = self.places[at % len(self.places)]
        if any(line.answers for line in place.lines):
            with pytest.raises(BusyError):
                place.context.clear(clear_data=data)
            return
        place.context.clear(clear_data=data)
        for line in place.lines:
            line.tokens = []

    # -- on disk ---------------------------------------------------------------------

    @precondition(lambda self: self.usable)
    @rule(at=picks)
    def save(self, at: int) -> None:
        line, sequence = self.pick(at)
        if line.answers:
            with pytest.raises(SequenceBusyError):
                sequence.save(self.bench.state_file)
            return
        sequence.save(self.bench.state_file)
        self.saved = list(self.learn(line))

    @precondition(lambda self: self.usable and self.saved is not None)
    @rule(at=picks)
    def load(self, at: int) -> None:
        """What was saved comes back, into any sequence of any context."""
        line, sequence = self.pick(at)
        if line.answers:
            with pytest.raises(SequenceBusyError):
                sequence.load(self.bench.state_file)
            return
        assert self.saved is not None
        sequence.load(self.bench.state_file)
        line.tokens = list(self.saved)
        self.learn(line)
