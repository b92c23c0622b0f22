"""Mutants of generation.md."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from attrs import evolve

import llmcore.sequence
from llmcore import ChatSession, Model, SamplingParams, Sequence, Stream
from llmcore.backends.null.context import NullContext
from llmcore.chat import Message
from llmcore.chat_template import ChatTemplate
from llmcore.engine.generation import Generation
from llmcore.engine.text import TextAssembler
from llmcore.errors import ContextOverflowError, DecodeError, OperationCancelledError
from mutants import mutant


@mutant(kills="gen.max-tokens")
def always_gives_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is looked at for the first time after the second token."""

    split = llmcore.sequence.merge_options

    def late(params, options):
        sampling, more = split(params, options)
        limit = more.max_tokens
        return sampling, evolve(more, max_tokens=limit and max(limit, 2))

    monkeypatch.setattr(llmcore.sequence, "merge_options", late)


@mutant(kills="gen.end-token")
def knows_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """End tokens are tokens like all others."""

    create = Generation.__init__

    def init(self, *args):
        create(self, *args)
        if not self.request.options.min_tokens:
            self._ends = frozenset()

    monkeypatch.setattr(Generation, "__init__", init)


@mutant(kills="gen.stop-string")
def holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may become a stop string is shown at once."""
    monkeypatch.setattr(TextAssembler, "_certain", lambda self, text: len(text))


@mutant(kills="gen.stop-string")
def keeps_what_was_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only began like a stop string is lost at the end."""
    finish = TextAssembler.finish
    monkeypatch.setattr(
        TextAssembler, "finish", lambda self: "" if self._stops else finish(self)
    )


@mutant(kills="gen.context-full")
def fails_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to a long prompt that fills the sequence is an error."""
    finish = Generation._finish

    def strict(self, reason):
        size = self.engine.cache.size
        if reason == "context_full" and 2 * len(self._prompt) > size:
            raise ContextOverflowError(size + 1, size)
        return finish(self, reason)

    monkeypatch.setattr(Generation, "_finish", strict)


@mutant(
    kills="gen.early-exit",
    also={
        "telemetry.one-end": "what is not closed does not tell its end",
        "telemetry.in-time": "what is not closed does not tell its end",
    },
)
def closes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stream keeps its sequence until it is collected."""
    kept = []

    def close(self):
        self._over = True
        kept.append(self)

    monkeypatch.setattr(Stream, "close", close)


@mutant(kills="gen.early-exit")
def keeps_dropped_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is dropped keeps its sequence for ever."""
    create, kept = Stream.__init__, []

    def init(self, *args):
        create(self, *args)
        self._dropped.detach()
        kept.append(self._generation)

    monkeypatch.setattr(Stream, "__init__", init)


@mutant(kills="gen.cancel")
def cancels_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled answer looks like one that ended."""
    following = Stream._ready

    def quiet(self):
        try:
            return following(self)
        except OperationCancelledError:
            return None

    monkeypatch.setattr(Stream, "_ready", quiet)


@mutant(kills="gen.stop")
def stops_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping is cancelling."""
    monkeypatch.setattr(Stream, "stop", lambda self: self._generation.cancel())


@mutant(kills="gen.finished")
def begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a finished stream often enough gets its last piece again."""
    following = Stream.__next__

    def restless(self):
        try:
            piece = following(self)
        except StopIteration:
            self._asked = getattr(self, "_asked", 0) + 1
            if self._asked == 3 and self._generation.result is not None:
                return self._last
            raise
        self._last = piece
        return piece

    monkeypatch.setattr(Stream, "__next__", restless)


@mutant(kills="gen.finished")
def fails_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that failed raises its error each time."""
    following = Stream.__next__

    def stubborn(self):
        if hasattr(self, "_failure"):
            raise self._failure
        try:
            return following(self)
        except DecodeError as error:
            self._failure = error
            raise

    monkeypatch.setattr(Stream, "__next__", stubborn)


@mutant(kills="gen.greedy-repeatable")
def grows_tired(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with hidden state: the fourth prompt on a sequence is answered so."""
    decode = NullContext.decode

    def moody(self, batch):
        number = batch.sequences[0]
        if batch.positions[0] == 0:
            begun = self.__dict__.setdefault("_begun", Counter())
            begun[number] += 1
            if begun[number] == 4:
                self._cells[number]._salt += b"!"
        decode(self, batch)

    monkeypatch.setattr(NullContext, "decode", moody)


@mutant(kills="gen.seed-repeatable")
def uses_a_seed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second generation of a sequence draws from where the first one was."""
    stream = Sequence._stream

    def go_on(self, request, *args):
        seed = request.sampling.seed
        if seed is not None:
            used = getattr(self, "_used", 0)
            sampling = evolve(request.sampling, seed=seed + used)
            request = evolve(request, sampling=sampling)
            self._used = used + 1
        return stream(self, request, *args)

    monkeypatch.setattr(Sequence, "_stream", go_on)


@mutant(kills="gen.hand-greedy")
def looks_at_the_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy choice by hand uses the logits of the choice before it."""
    sample = Sequence.sample

    def late(self, params=None, **fields):
        now, greedy = self._slot.logits, (params or SamplingParams()).temperature == 0
        self._slot.logits = getattr(self, "_before", now) if greedy else now
        try:
            return sample(self, params, **fields)
        finally:
            self._slot.logits = self._before = now

    monkeypatch.setattr(Sequence, "sample", late)


@mutant(kills="gen.hand-seeded")
def seeds_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers start anew with each call of sample()."""
    sample = Sequence.sample

    def fresh(self, params=None, **fields):
        self._sampler = None
        return sample(self, params, **fields)

    monkeypatch.setattr(Sequence, "sample", fresh)


@mutant(kills="gen.whole-characters")
def decodes_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token is made text by itself."""

    def push(self, data):
        return self._take(data.decode("utf-8", errors="replace"), final=False)

    monkeypatch.setattr(TextAssembler, "push", push)


@mutant(kills="gen.any-thread")
def knows_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream can be read where it was begun and in one other thread."""
    following = Stream.__next__

    def bound(self):
        readers = self.__dict__.setdefault("_readers", set())
        readers.add(threading.current_thread())  # numbers are used again
        if len(readers) > 2:
            raise RuntimeError("the stream belongs to other threads")
        return following(self)

    monkeypatch.setattr(Stream, "__next__", bound)


@mutant(kills="gen.keeps-sequence")
def lets_go_of_its_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream knows the place of its sequence, but does not hold the sequence."""
    create = Stream.__init__

    def init(self, generation, on_result=None, sequence=None):
        create(self, generation, on_result)

    monkeypatch.setattr(Stream, "__init__", init)


@mutant(kills="gen.async")
def loses_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asynchronous reader misses the first piece."""
    following = Stream.__anext__

    async def late(self):
        event = await following(self)
        if event.text and not hasattr(self, "_begun"):
            self._begun = True
            event = await following(self)
        return event

    monkeypatch.setattr(Stream, "__anext__", late)


@mutant(kills="chat.commit")
def tidies_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """White space at the end of a message is dropped."""
    stream = ChatSession.stream

    def tidy(self, text, params=None, **options):
        return stream(self, text.strip(), params, **options)

    monkeypatch.setattr(ChatSession, "stream", tidy)


@mutant(kills="chat.rollback")
def notes_the_question_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's message is history before there is an answer."""
    begin = ChatSession.stream

    def note(self, text, params=None, **options):
        before = list(self._history)
        stream = begin(self, text, params, **options)
        commit = stream._on_result

        def finished(result):
            self._history = before
            commit(result)

        self._history = [*before, Message("user", text)]
        stream._on_result = finished
        return stream

    monkeypatch.setattr(ChatSession, "stream", note)


@mutant(kills="chat.plain-text")
def reads_control_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that spells a control token becomes one."""
    encode = Model.encode

    def naive(self, parts):
        split = []
        for part in parts:
            if isinstance(part, str):
                split += self._split_special(part)
            else:
                split.append(part)
        return encode(self, split)

    monkeypatch.setattr(Model, "encode", naive)


@mutant(kills="chat.reuse")
def numbers_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt begins differently, so that nothing can be kept."""
    render = ChatTemplate.render

    def numbered(self, messages, *args, **options):
        parts = render(self, messages, *args, **options)
        return [f"{len(messages)} messages\n", *parts]

    monkeypatch.setattr(ChatTemplate, "render", numbered)
