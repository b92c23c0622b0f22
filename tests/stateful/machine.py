"""
The model: what a program knows of sequences, streams and slots, and what it may expect.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import llmcore
import llmcore.values
from llmcore.engine.generation import Generation
from llmcore.errors import (
    BackendError,
    BusyError,
    ContextOverflowError,
    DecodeError,
    DisposedError,
    DisposeError,
    DisposeTimeoutError,
    NoResultError,
    NoSequenceLeftError,
    OperationCancelledError,
    OperationTimeoutError,
    QueueFullError,
    SequenceBusyError,
    StateError,
)
from llmcore.events import CacheHit, Finish, StreamEvent, Usage
from llmcore.lifecycle import collect_forgotten

from .kit import Bench, Options, eventually, predictor_named

picks = st.integers(0, 1000)
few = st.integers(0, 6)
prompts = st.lists(st.integers(0, 2), max_size=20)
WAYS_OUT = ["close", "cancel", "stop", "drop", "finish"]
options = st.fixed_dictionaries(
    {"max_tokens": st.sampled_from([1, 2, 5, 12, 30, None])},
    optional={
        "stop": st.integers(0, 2),
        "seed": st.just(7),
        "timeout": st.just(600.0),
        "predictor": st.sampled_from(["liar", "lookup"]),
        "overflow": st.just(llmcore.values.Shift(keep=2)),
    },
)


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


class Programs(RuleBasedStateMachine):
    """
    Random programs of one thread, against what their author may expect.

    Only the head of a line is read: those behind it wait for it.
    """

    bench: ClassVar[Bench]
    contexts: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        warnings.simplefilter("ignore", ResourceWarning)
        gc.freeze()  # collecting takes microseconds without what was there before
        self.places: list[Place] = []

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

    # -- answers ---------------------------------------------------------------------

    def prompt_for(self, line: Line, numbers: list[int], keep: int) -> list[int]:
        """A prompt that has much in common with what the sequence may hold."""
        held = line.tokens or (line.answers[-1].prompt if line.answers else [])
        prompt = [*held[: keep % (len(held) + 1)], *self.tokens([*numbers, 1])]
        assert line.sequence is not None
        return prompt[-line.sequence.size :]

    @precondition(lambda self: self.usable)
    @rule(at=picks, numbers=prompts, keep=picks, drawn=options, wait=st.booleans())
    def generate(
        self, at: int, numbers: list[int], keep: int, drawn: Options, wait: bool
    ) -> None:
        line = self.pick(at)[0]
        prompt = self.prompt_for(line, numbers, keep)
        self.start(line, prompt, self.real_options(drawn), wait=wait)

    def start(
        self, line: Line, prompt: list[int], given: dict[str, Any], *, wait: bool
    ) -> Answer | None:
        """Ask for an answer; None if that is refused, as it must be."""
        assert line.sequence is not None
        guess = predictor_named(given.get("predictor"), self.bench.alphabet)
        real = {**given, "predictor": guess, "wait": wait}
        if line.answers and not wait:
            with pytest.raises(SequenceBusyError):
                line.sequence.generate(prompt, **real)
            return None
        if line.answers and line.place.waiting >= self.bench.params["max_waiting"]:
            with pytest.raises(QueueFullError):
                line.sequence.generate(prompt, **real)
            return None
        stream = line.sequence.generate(prompt, **real)
        answer = Answer(line, stream, prompt, given, stream._generation)
        answer.before = None if line.answers else line.tokens
        line.answers.append(answer)
        return answer

    @precondition(lambda self: self.heads)
    @rule(at=picks, count=few)
    def read(self, at: int, count: int) -> None:
        """Read some events of an answer, perhaps the last one."""
        answer = self.heads[at % len(self.heads)]
        for _ in range(count):
            assert answer.stream is not None
            event = next(answer.stream)
            answer.events.append(event)
            if isinstance(event, Finish):
                self.finished(answer)
                return

    @precondition(lambda self: self.heads)
    @rule(at=picks)
    def finish(self, at: int) -> None:
        self.finish_answer(self.heads[at % len(self.heads)])

    def finish_answer(self, answer: Answer) -> None:
        assert answer.stream is not None
        answer.events.extend(answer.stream)
        self.finished(answer)

    def finished(self, answer: Answer) -> None:
        """Everything about an answer that was read to its end is right."""
        line, stream = answer.line, answer.stream
        assert stream is not None
        assert list(stream) == []
        result = stream.result
        events = answer.events
        assert "".join(event.text for event in events) == result.text
        assert isinstance(events[-2], Usage)
        if isinstance(events[0], CacheHit):
            report = events[0].report
            length = len(answer.prompt)
            assert report.matched + report.shifted + report.evaluated == length
            assert report.evaluated >= 1
        else:
            assert result.finish_reason == "stopped"
            assert not result.tokens
        if result.finish_reason == "stopped":
            assert answer.cut
            assert self.is_start([*answer.prompt, *result.tokens], answer)
        else:
            self.bench.check(answer.prompt, self.right_options(answer.options), result)
        self.leave(answer)
        if line.answers:
            line.tokens = None
            return
        eventually(lambda: answer.generation.mailbox.closed, "the end of an answer")
        ended = [*answer.prompt, *result.tokens]
        if result.finish_reason != "end" and result.tokens:
            ended.pop()  # the last one was not evaluated
        line.tokens = None
        if line.sequence is not None:
            with line.place.context._use():  # the step that ended it is over
                held = line.sequence.tokens
            if "predictor" in answer.options and not self.bench.full:
                # To drop a wrong guess the cache went back further.
                ended = ended[: len(held)]
            loose = answer.cut or "overflow" in answer.options
            if not (loose and self.may_hold(held, answer)):
                assert held == ended, f"{held} != {ended}"
            line.tokens = held
        self.free_if_forgotten(line)

    def leave(self, answer: Answer) -> None:
        answer.line.answers.remove(answer)
        answer.stream = None

    @precondition(lambda self: self.all_answers)
    @rule(at=picks, way=st.sampled_from(WAYS_OUT), wait=st.booleans())
    def give_up(self, at: int, way: str, wait: bool) -> None:
        """End any answer in any way; also one that waits in line."""
        answer = self.all_answers[at % len(self.all_answers)]
        self.end(answer, way, wait=wait)

    def end(self, answer: Answer, way: str, *, wait: bool) -> None:
        line, stream = answer.line, answer.stream
        assert stream is not None
        head = line.answers[0] is answer
        if way == "stop":
            stream.stop()
            answer.cut = True
            if head:
                self.finish_answer(answer)
            return
        if way == "finish":
            if head:
                self.finish_answer(answer)
            return
        if way == "cancel":
            stream.cancel()
            with pytest.raises(OperationCancelledError):
                next(stream)
            assert list(stream) == []
        elif way == "close":
            stream.close()
            assert list(stream) == []
        generation = answer.generation
        del stream
        self.leave(answer)
        if head:
            line.tokens = None
        if way == "drop" and not wait:
            pass  # nobody waits for the engine: it may be in the middle of a step
        elif head and not line.answers and line.sequence is not None:
            eventually(lambda: generation.mailbox.closed, "the end of a stream")
            held = line.sequence.tokens
            assert self.may_hold(held, answer)
            line.tokens = held
        self.free_if_forgotten(line)

    @precondition(lambda self: self.usable)
    @rule(at=picks, wait=st.booleans())
    def no_time(self, at: int, wait: bool) -> None:
        """An answer that has no time ends at once, in line or not."""
        line, sequence = self.pick(at)
        if line.answers and not wait:
            return
        if line.answers and line.place.waiting >= self.bench.params["max_waiting"]:
            return
        stream = sequence.generate(self.tokens([0]), timeout=0.0, wait=wait)
        with pytest.raises(OperationTimeoutError):
            next(stream)
        assert list(stream) == []
        self.learn(line) if not line.answers else None

    # -- conversations ---------------------------------------------------------------

    @precondition(lambda self: self.usable)
    @rule(at=picks, text=st.sampled_from(["a", "be", "cab"]), count=few, way=picks)
    def chat(self, at: int, text: str, count: int, way: int) -> None:
        """A turn that was read becomes history, one that was not leaves no trace."""
        line, sequence = self.pick(at)
        if line.chat is None:
            line.chat = llmcore.ChatSession(sequence, system_prompt="b")
        chat, before = line.chat, line.chat.history
        settings: dict[str, Any] = {"max_tokens": 3, "temperature": 0.0}
        if line.answers:
            with pytest.raises(SequenceBusyError):
                chat.stream(text, **settings)
            return
        line.tokens = None
        try:
            stream = chat.stream(text, **settings)
        except ContextOverflowError:
            assert chat.history == before
            chat.reset()
            return
        for _ in zip(range(count), stream, strict=False):
            pass
        if way % 3 == 0 and len(chat.history) == len(before):
            stream.close()
            assert chat.history == before
            return
        result = stream.result
        self.bench.check(result.receipt.prompt, settings, result)
        assert chat.history == [*before, ("user", text), ("assistant", result.text)]

    @precondition(lambda self: any(line.chat for line in self.lines))
    @rule(at=picks)
    def drop_chat(self, at: int) -> None:
        chats = [line for line in self.lines if line.chat is not None]
        line = chats[at % len(chats)]
        line.chat = None
        self.free_if_forgotten(line)

    # -- disposals from above --------------------------------------------------------

    @rule(at=picks, way=st.sampled_from(["cancel", "wait", "model"]))
    def dispose_above(self, at: int, way: str) -> None:
        """What is above all sequences goes; then there is a new one."""
        place = self.places[at % len(self.places)]
        gone = self.places if way == "model" else [place]
        if way == "model":
            self.model.dispose()
        elif way == "cancel":
            place.context.dispose()
        else:
            self.let_finish(place)
        for one in gone:
            for line in one.lines:
                self.gone(line)
            with pytest.raises(DisposedError):
                one.context.get_sequence(wait=True)
            with pytest.raises(DisposedError):
                one.context.clear()
        if way == "model":
            self.model = self.llama.load_model(self.bench.path)
        self.places = [self.make_place() if p in gone else p for p in self.places]

    def let_finish(self, place: Place) -> None:
        """A disposal that waits lets answers come to their end, and nothing begin."""
        busy = [line for line in place.lines if line.answers]
        if busy:
            with pytest.raises(DisposeTimeoutError):
                place.context.dispose(inflight="wait", timeout=0)
        for line in busy:
            if line.sequence is not None:
                with pytest.raises(DisposedError):
                    line.sequence.evaluate([])
            line.sequence = None
            while line.answers:
                answer = line.answers[0]
                assert answer.stream is not None
                answer.events.extend(answer.stream)
                options = self.right_options(answer.options)
                if not answer.cut:
                    self.bench.check(answer.prompt, options, answer.stream.result)
                self.leave(answer)
        place.context.dispose(inflight="wait")

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
            self.quiet.__exit__(None, None, None)


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


def run_machine(
    kind: type[Programs], bench: Bench, *, contexts: int, examples: int, steps: int
) -> None:
    """Try so many random programs of so many steps."""
    machine = type(kind.__name__, (kind,), {"bench": bench, "contexts": contexts})
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            deadline=None,
            max_examples=examples,
            stateful_step_count=steps,
        ),
    )
