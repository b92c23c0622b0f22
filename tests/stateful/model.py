"""
The model: what a program knows of sequences, streams and slots.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

import llmcore
import llmcore.values
from llmcore.engine.generation import Generation
from llmcore.errors import DisposedError, NoResultError, SequenceBusyError
from llmcore.events import StreamEvent
from llmcore.lifecycle import collect_forgotten

from .kit import Bench, Options, eventually

picks = st.integers(0, 1000)
few = st.integers(0, 6)
prompts = st.lists(st.integers(0, 2), max_size=20)


@define(eq=False)
class Place:
    """A context, and what was taken of it."""

    context: llmcore.Context
    lines: list[Line] = field(factory=list)

    @property
    def waiting(self) -> int:
        return sum(max(0, len(line.answers) - 1) for line in self.lines)


@define(eq=False)
class Line:
    """What the model knows of a sequence; ``tokens`` is None if it cannot know."""

    place: Place
    sequence: llmcore.Sequence | None
    tokens: list[int] | None = field(factory=list)
    answers: list[Answer] = field(factory=list)
    chat: llmcore.ChatSession | None = None


@define(eq=False)
class Answer:
    """What the model knows of an open stream."""

    line: Line
    stream: llmcore.Stream | None
    prompt: list[int]
    options: Options
    generation: Generation
    events: list[StreamEvent] = field(factory=list)
    before: list[int] | None = None  # what the sequence held; None if not known
    cut: bool = False  # stop() was called: any start of the answer is right


class Model(RuleBasedStateMachine):
    """What is known of a program by one thread, and what always holds."""

    bench: ClassVar[Bench]
    contexts: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        warnings.simplefilter("ignore", ResourceWarning)
        gc.freeze()  # collecting takes microseconds without what was there before
        self.places: list[Place] = []
        self.saved: list[int] | None = None

    @initialize()
    def begin(self) -> None:
        self.llama, self.backend = self.bench.llama()
        self.model = self.llama.load_model(self.bench.path)
        for _ in range(self.contexts):
            self.places.append(self.make_place())

    def make_place(self) -> Place:
        return Place(self.model.create_context(**self.bench.params))

    # -- the model -------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        return [line for place in self.places for line in place.lines]

    @property
    def usable(self) -> list[Line]:
        return [line for line in self.lines if line.sequence is not None]

    @property
    def heads(self) -> list[Answer]:
        return [line.answers[0] for line in self.lines if line.answers]

    @property
    def all_answers(self) -> list[Answer]:
        return [answer for line in self.lines for answer in line.answers]

    def pick(self, at: int) -> tuple[Line, llmcore.Sequence]:
        line = self.usable[at % len(self.usable)]
        assert line.sequence is not None
        return line, line.sequence

    def tokens(self, numbers: Sequence[int]) -> list[int]:
        return [self.bench.alphabet[n] for n in numbers]

    def learn(self, line: Line) -> list[int]:
        """What the sequence holds, which must be what the model says if it knows."""
        if line.sequence is None:
            return line.tokens or []
        tokens = line.sequence.tokens
        assert line.tokens is None or tokens == line.tokens
        line.tokens = tokens
        return tokens

    def is_start(self, tokens: Sequence[int], answer: Answer) -> bool:
        """Whether the tokens are a start of the prompt and its right answer."""
        if tokens == answer.prompt[: len(tokens)] or "overflow" in answer.options:
            return True
        if not self.bench.exact:
            return tokens[: len(answer.prompt)] == answer.prompt
        # With no end of its own: what was drawn ahead may be beyond it.
        plain = {**self.right_options(answer.options), "max_tokens": None}
        plain.pop("stop", None)
        right = self.bench.right(answer.prompt, plain)
        return tokens == [*answer.prompt, *right.tokens][: len(tokens)]

    def may_hold(self, tokens: list[int], answer: Answer) -> bool:
        """Whether a sequence may hold this after an answer that was cut short."""
        return answer.before in (None, tokens) or self.is_start(tokens, answer)

    @staticmethod
    def right_options(given: Options) -> dict[str, Any]:
        """Those that matter for what the answer is."""
        ignored = ("predictor", "timeout", "wait")
        return {k: v for k, v in given.items() if k not in ignored}

    def free_if_forgotten(self, line: Line) -> None:
        if line.sequence is None and not line.answers and line.chat is None:
            line.place.lines.remove(line)

    def real_options(self, drawn: Options) -> dict[str, Any]:
        given = {"temperature": 0.0, **drawn}
        if "stop" in given:
            given["stop"] = self.bench.stops[given["stop"]]
        if "seed" in given:
            given["temperature"] = 1.0
        if "overflow" in given and not self.bench.shifts:
            del given["overflow"]
        elif "overflow" in given and given["max_tokens"] is None:
            given["max_tokens"] = 120  # or it would never end
        return given

    def gone(self, line: Line) -> None:
        """Everything about a sequence was disposed: it says so, once to each reader."""
        for answer in line.answers:
            assert answer.stream is not None
            with pytest.raises(DisposedError):
                next(answer.stream)
            assert list(answer.stream) == []
            with pytest.raises(NoResultError):
                answer.stream.result  # noqa: B018
        line.answers.clear()
        refused: list[Callable[[], object]] = []
        if line.sequence is not None:
            sequence = line.sequence
            refused += [
                lambda: sequence.tokens,
                lambda: sequence.evaluate([]),
                lambda: sequence.generate([self.bench.alphabet[0]], wait=True),
                lambda: sequence.truncate(0),
                sequence.fork,
            ]
        if line.chat is not None:
            chat = line.chat
            refused += [lambda: chat.history, lambda: chat.stream("a", wait=True)]
        for call in refused:
            with pytest.raises(DisposedError):
                call()

    def leave(self, answer: Answer) -> None:
        answer.line.answers.remove(answer)
        answer.stream = None

    # -- what always holds -----------------------------------------------------------

    @invariant()
    def slots_add_up(self) -> None:
        """As many are free as nobody can reach."""
        for place in self.places:
            collect_forgotten()
            if not self.adds_up(place):
                gc.collect()
                collect_forgotten()
                eventually(partial(self.adds_up, place), "the number of free slots")

    def adds_up(self, place: Place) -> bool:
        taken = self.bench.params["sequences"] - place.context.sequences_left
        return bool(taken == len(place.lines))

    @invariant()
    def busy_exactly(self) -> None:
        """A sequence is busy while a stream is open on it, and only then."""
        for line in self.usable:
            assert line.sequence is not None
            if line.answers:
                with pytest.raises(SequenceBusyError):
                    line.sequence.evaluate([])
            else:
                line.sequence.evaluate([])

    @invariant()
    def mirrors(self) -> None:
        """When nothing runs, the token log is what the engine holds."""
        for place in self.places:
            if any(line.answers for line in place.lines):
                continue
            with place.context._use() as native:
                for line in place.lines:
                    if line.sequence is not None and line.tokens is not None:
                        self.mirror(native, line.sequence, line.tokens)

    def mirror(
        self, native: Any, sequence: llmcore.Sequence, tokens: list[int]
    ) -> None:
        slot = sequence._slot
        assert not slot.pending
        assert sequence.tokens == tokens
        assert native.bounds(slot.number)[1] == len(tokens) - 1
        if self.backend is not None:
            cells = native._cells[slot.number]
            assert list(cells.tokens) == tokens[len(tokens) - len(cells) :]

    @invariant()
    def nothing_wrong(self) -> None:
        """The engine was never used in a way that it forbids."""
        if self.backend is not None:
            assert not self.backend.ledger.violations, (
                f"violations: {self.backend.ledger.violations}"
            )

    def teardown(self) -> None:
        try:
            if self.places:
                self.llama.dispose()
                for line in self.lines:
                    self.gone(line)
                self.nothing_wrong()
                if self.backend is not None:
                    assert self.backend.ledger.live == {}
        finally:
            self.places.clear()
            gc.unfreeze()
            collect_forgotten()  # while its warnings are quiet
            self.quiet.__exit__(None, None, None)
