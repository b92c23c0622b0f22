"""
The same programs on an engine that fails.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from llmcore.errors import (
    BackendError,
    ContextOverflowError,
    DecodeError,
    DisposeError,
    DisposeTimeoutError,
    NoSequenceLeftError,
    StateError,
)

from .answers import options
from .kit import Options
from .model import Answer, few, picks, prompts
from .programs import Programs

OPS = (
    *("sample", "logits", "piece", "create_sampler", "accept", "bounds", "remove"),
    *("copy", "shift", "save_state", "load_state"),
)
"""What else can fail in the engine."""


class Faulty(Programs):
    """The same on an engine that fails, and is caught in the middle of a step."""

    @precondition(lambda self: self.usable)
    @rule(
        numbers=prompts,
        drawn=options,
        nth=st.integers(1, 4),
        times=st.integers(1, 3),
        applied=st.integers(0, 20),
    )
    def decode_fails(
        self, numbers: list[int], drawn: Options, nth: int, times: int, applied: int
    ) -> None:
        """Answers fail or are right; no more fail than evaluations did."""
        assert self.backend is not None
        script = self.backend.script
        given = self.real_options(drawn)
        script.fail("decode", nth=nth, times=times, applied=applied)
        for n, line in enumerate(self.usable):
            if not line.answers:
                self.start(line, self.tokens([*numbers, n % 3]), given, wait=False)
        failed = 0
        while self.heads:
            answer = self.heads[0]
            assert answer.stream is not None
            try:
                answer.events.extend(answer.stream)
            except DecodeError:
                failed += 1
                assert list(answer.stream) == []
                self.failed(answer)
            else:
                self.finished(answer)
        script._fails.clear()
        assert failed <= times

    def failed(self, answer: Answer) -> None:
        line = answer.line
        self.leave(answer)
        line.tokens = None
        if not line.answers and line.sequence is not None:
            with line.place.context._use():
                held = line.sequence.tokens
            assert self.may_hold(held, answer)
        self.free_if_forgotten(line)

    @precondition(lambda self: self.usable)
    @rule(
        op=st.sampled_from(OPS),
        numbers=prompts,
        drawn=options,
        nth=st.integers(1, 4),
        times=st.integers(1, 2),
    )
    def engine_fails(
        self, op: str, numbers: list[int], drawn: Options, nth: int, times: int
    ) -> None:
        """Whatever else fails, an answer fails by a typed error or is right."""
        assert self.backend is not None
        script = self.backend.script
        given = self.real_options(drawn)
        for n, line in enumerate(self.usable):
            if not line.answers:
                self.start(line, self.tokens([*numbers, n % 3]), given, wait=False)
        script.fail(op, nth=nth, times=times)
        while self.heads:
            answer = self.heads[0]
            assert answer.stream is not None
            try:
                answer.events.extend(answer.stream)
            except (DecodeError, BackendError, StateError):
                assert list(answer.stream) == []
            else:
                result = answer.stream.result
                if not answer.cut:
                    right = self.right_options(answer.options)
                    self.bench.check(answer.prompt, right, result)
            self.leave(answer)
            answer.line.tokens = None
            self.free_if_forgotten(answer.line)
        self.edit_by_hand(numbers)
        script._fails.clear()
        for line in self.usable:
            assert line.sequence is not None
            line.sequence.truncate(line.sequence.position)  # what is true is asked for

    def edit_by_hand(self, numbers: list[int]) -> None:
        """Edit all sequences while the engine fails; they must stay usable."""
        for line in list(self.usable):
            assert line.sequence is not None
            with suppress(DecodeError, BackendError, StateError, ContextOverflowError):
                line.sequence.evaluate(self.tokens(numbers))
            with suppress(DecodeError, BackendError, StateError, OSError):
                line.sequence.save(self.bench.state_file)
                self.saved = None  # it is another one now
                line.sequence.load(self.bench.state_file)
            with suppress(DecodeError, BackendError, StateError):
                line.sequence.truncate(line.sequence.position // 2)
            with (
                suppress(
                    DecodeError,
                    BackendError,
                    StateError,
                    NoSequenceLeftError,
                    DisposeError,
                ),
                line.sequence.fork(),
            ):
                pass

    @precondition(lambda self: self.usable)
    @rule(at=picks, numbers=prompts, nth=st.integers(1, 2), applied=few)
    def evaluate_fails(
        self, at: int, numbers: list[int], nth: int, applied: int
    ) -> None:
        """A failed evaluation changes nothing, where the cache can go back."""
        assert self.backend is not None
        line, sequence = self.pick(at)
        if self.heads or len(self.learn(line)) + 21 > sequence.size:
            return
        before = self.learn(line)
        self.backend.script.fail("decode", nth=nth, applied=applied)
        more = self.tokens([*numbers, 0])
        line.tokens = None
        try:
            sequence.evaluate(more)
        except DecodeError:
            held = self.learn(line)
            assert held == before if self.bench.full else held == before[: len(held)]
        else:
            assert self.learn(line) == [*before, *more]
        self.backend.script._fails.clear()

    @precondition(lambda self: self.usable)
    @rule(
        at=picks,
        numbers=prompts,
        way=st.sampled_from(["cancel", "drop", "stop", "dispose", "above", "next"]),
        wait=st.booleans(),
    )
    def inside_a_step(self, at: int, numbers: list[int], way: str, wait: bool) -> None:
        """The same things while the engine is in the middle of a step."""
        assert self.backend is not None
        line, sequence = self.pick(at)
        place = line.place
        if any(one.answers for one in place.lines):
            return
        given = {"max_tokens": 9, "temperature": 0.0}
        prompt = self.tokens([*numbers, 2])
        with self.backend.script.gate("decode") as gate:
            answer = self.start(line, prompt, given, wait=wait)
            assert answer is not None
            assert answer.stream is not None
            gate.wait_entered()
            if way == "cancel":
                answer.stream.cancel()
            elif way == "stop":
                answer.stream.stop()
                answer.cut = True
            elif way == "drop":
                self.end(answer, "drop", wait=False)
            elif way in ("dispose", "above"):
                target = sequence if way == "dispose" else place.context
                with suppress(DisposeTimeoutError):
                    target.dispose(timeout=0)
            for other in place.lines:
                if other.sequence is not None and way not in ("dispose", "above"):
                    self.start(other, prompt, given, wait=True)
        self.after_the_step(answer, way)

    def after_the_step(self, answer: Answer, way: str) -> None:
        line, place = answer.line, answer.line.place
        if way == "cancel":
            self.end(answer, "cancel", wait=True)
        elif way == "dispose":
            assert line.sequence is not None
            line.sequence.dispose()
            self.gone(line)
            place.lines.remove(line)
        elif way == "above":
            place.context.dispose()
            for one in place.lines:
                self.gone(one)
            self.places[self.places.index(place)] = self.make_place()
