"""
Answers and conversations.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import llmcore
import llmcore.values
from llmcore.errors import (
    ContextOverflowError,
    OperationCancelledError,
    OperationTimeoutError,
    QueueFullError,
    SequenceBusyError,
)
from llmcore.events import CacheHit, Finish, Usage

from .kit import Options, eventually, predictor_named
from .model import Answer, Line, Model, few, picks, prompts

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


class Answers(Model):
    """
    What a program does with streams.

    Only the head of a line is read: those behind it wait for it.
    """

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
