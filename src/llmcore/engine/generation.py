"""
`Generation`: one answer, from its prompt to its end.

Plain state behind a `Stream`: it does not know the stream, so a stream that is dropped
can be cleaned up. The engine's thread makes the answer, one reader takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from llmcore.engine.answer_text import AnswerText
from llmcore.engine.cache import Cache
from llmcore.engine.callers import call
from llmcore.engine.job import Job
from llmcore.engine.overflow import room_made
from llmcore.engine.reasoning import ReasoningMarks
from llmcore.engine.receipt import Receipt
from llmcore.engine.samplers import Drawer
from llmcore.engine.signals import MOMENT, Mailbox
from llmcore.engine.work import Work
from llmcore.errors import ContextOverflowError
from llmcore.events import (
    CacheHit,
    CacheReport,
    Finish,
    FinishReason,
    Shifted,
    StreamEvent,
    TokenDrawn,
    Usage,
)
from llmcore.spi import BackendContext
from llmcore.telemetry import RequestTrace, Statistics
from llmcore.values import GenerationParams, SamplingParams

if TYPE_CHECKING:
    from llmcore.engine.engine import Engine

AHEAD = 8
"""Unread events that the engine runs ahead of a reader, so that it need not wait."""


@frozen(kw_only=True)
class GenerationResult:
    """
    An answer.

    Attributes:
        text: All of it.

        reasoning: What the model thought before it, where its template marks that.

        tokens: As they were drawn; without the token that ended it.

        finish_reason: ``"end"``: the model ended its answer; ``"stop"``: a stop string
            or a stop token; ``"max_tokens"``; ``"context_full"``: the sequence can
            hold no more; ``"stopped"``: `Stream.stop` was called.

        prompt_tokens: Length of the prompt.

        cache: What of the prompt was in the cache.

        usage: What it cost.

        statistics: The same, and how long it took; two equal answers may differ in it.

        logprobs: Of each token, if they were asked for.

        receipt: With what it can be repeated.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cache: CacheReport
    usage: Usage
    receipt: Receipt
    statistics: Statistics = field(eq=False)
    reasoning: str = ""
    logprobs: tuple[TokenDrawn, ...] = ()


@frozen(kw_only=True)
class GenerationRequest:
    """
    What to generate.

    Attributes:
        prompt: All of it, or what makes it when it is this request's turn.

        sampling: How to choose tokens.

        options: When to end, what to tell.

        marks: How the model marks what it thinks, if it does.

        operation: What telemetry calls it.
    """

    prompt: Sequence[int] | Callable[[], Sequence[int]]
    sampling: SamplingParams = field(factory=SamplingParams)
    options: GenerationParams = field(factory=GenerationParams)
    marks: ReasoningMarks | None = None
    operation: Literal["text_completion", "chat"] = "text_completion"


class Generation(Work):
    """
    Lives until its answer was read, or nobody wants it any more.

    Args:
        request: What to generate.

        job: Its claim on the sequence; ended by the reader, or here on a failure.

        engine: Of the context.
    """

    def __init__(self, request: GenerationRequest, job: Job, engine: Engine) -> None:
        super().__init__(job)
        self.request = request
        self.mailbox = Mailbox[StreamEvent](AHEAD, engine.loop.wake)
        self.engine = engine
        self.priority = request.options.priority
        self.drawn: list[int] = []
        self.result: GenerationResult | None = None
        self.error: BaseException | None = None
        self.stopping = False
        self._trace = RequestTrace(job.node)
        self._piece = partial(engine.pieces.of, operation=job)
        self._prompt: Sequence[int] = ()
        self._text = AnswerText(request.options.stop, request.marks)
        self._told: list[TokenDrawn] = []
        self._report: CacheReport | None = None
        self._drawer: Drawer | None = None
        self._held: Sequence[int] = ()
        self._valid: int | None = None
        self._last: tuple[StreamEvent, ...] = ()
        self._guessed_right = 0
        self._told_predictor = 0
        options = request.options
        ends = () if options.ignore_eos else engine.info.end_tokens
        self._ends = frozenset(ends)
        self._stops = frozenset(options.stop_tokens)

    # -- for the reader ----------------------------------------------------------------

    def cancel(self) -> None:
        """Give it up at the next step, or inside one. Any thread."""
        self.job.cancel()
        self.mailbox.wake()

    def stop(self) -> None:
        """End it at the next step, with what there is. Any thread."""
        self.stopping = True
        self.engine.loop.wake()

    def wait_until_let_go(self) -> None:
        """Wait until the engine is through with it."""
        while not (self.engine.loop.inside or self.mailbox.wait_closed(MOMENT)):
            pass

    def close(self) -> None:
        """Give the sequence back; twice is fine, also in the collector."""
        self.job.end()

    # -- for the engine ----------------------------------------------------------------

    def asked(self) -> None:
        """From here on its time counts."""
        self._trace.asked(
            operation=self.request.operation,
            max_tokens=self.request.options.max_tokens,
            temperature=self.request.sampling.temperature,
        )

    @property
    def parked(self) -> bool:
        """Whether the reader is behind."""
        return self.mailbox.full and not self.stopping

    @property
    def thoughtful(self) -> bool:
        """Whether it can guess: there is a last token, and nothing is repeated."""
        guesses = self.request.options.predictor is not None
        guesses = guesses and not self.engine.params.deterministic
        return guesses and self.running and self.rows == len(self.tokens) == 1

    def tell(self) -> None:
        """Wake the reader."""
        self.mailbox.tell()

    def think(self) -> None:
        """Guess what comes next."""
        predictor = self.request.options.predictor
        if self._told_predictor == 0:
            predictor.start([*self._prompt, *self.drawn])
        else:
            predictor.accept(self.drawn[self._told_predictor :])
        self._told_predictor = len(self.drawn)
        limit = self.engine.cache.size - len(self.job.slot.tokens) - 1
        limit = min(limit, self.engine.params.batch_size - 1)
        if self.request.options.max_tokens is not None:
            limit = min(limit, self.request.options.max_tokens - len(self.drawn) - 1)
        if limit > 0:
            guesses = list(predictor.predict(limit))[:limit]
            self.engine.pieces.check(guesses)
            self.tokens = [*self.tokens, *guesses]
            self.rows = len(self.tokens)

    def prepare(self, native: BackendContext, cache: Cache) -> None:
        """Begin, or make room for the next token."""
        if self.stopping:
            self._finish("stopped")
        elif self._report is None:
            self._begin(native, cache)
        elif len(self.job.slot.tokens) >= cache.size:
            self._make_room(native, cache)

    def _make_room(self, native: BackendContext, cache: Cache) -> None:
        slot = self.job.slot
        made = room_made(self.request.options.overflow, native, cache, slot)
        if made is None:
            self._finish("context_full")
            return
        assert made.drop is not None
        self.start = len(slot.tokens)
        self.mailbox.put(Shifted(dropped=made.drop, kept=made.keep))

    def _begin(self, native: BackendContext, cache: Cache) -> None:
        """Keep what of the prompt is cached, and decide how tokens are drawn."""
        self._trace.begun()
        slot, request = self.job.slot, self.request
        prompt = request.prompt
        self._prompt = prompt = call(prompt) if callable(prompt) else prompt
        if len(prompt) > cache.size:
            raise ContextOverflowError(len(prompt), cache.size)
        if self.engine.params.deterministic:
            cache.clear(native, slot)
            report = CacheReport(
                matched=0,
                evaluated=len(prompt),
                reason="a deterministic context evaluates each prompt from its start",
            )
        else:
            move = request.options.overflow != "error"
            report = cache.reuse(native, slot, prompt, move=move)
        self._drawer = Drawer(
            native,
            self.engine.samplers,
            self.engine.info,
            request.sampling,
            request.options,
            prompt,
            self._piece,
        )
        self.start = report.reused
        self.tokens = prompt[report.reused :]
        if cache.has_checkpoints and len(self.tokens) > 1:
            # The same prompt may come again, and must evaluate its last token then.
            self.tokens, self._held, self.rows = self.tokens[:-1], self.tokens[-1:], 0
        self._report = report
        self.mailbox.put(CacheHit(report=report))

    def take(self, native: BackendContext, row: int) -> None:
        """Draw a token from each output, as long as what was guessed is right."""
        if self.rows == 0:
            return
        first = len(self.tokens) - self.rows
        for n in range(self.rows):
            token = self._draw(native, row + n)
            if not self.running:
                self.running = True
                assert self._report is not None
                self._trace.first_token(len(self._prompt), self._report.reused)
            self._valid = self.start + first + n + 1
            if self._accept(token):
                return
            if n + 1 == self.rows or token != self.tokens[first + n + 1]:
                break
            self._guessed_right += 1
        self.tokens, self.rows = [token], 1

    def _draw(self, native: BackendContext, row: int) -> int:
        assert self._drawer is not None
        few = len(self.drawn) < self.request.options.min_tokens
        banned = self._ends | self._stops if few else frozenset[int]()
        return self._drawer.draw(native, row, self._everything, banned)

    def _everything(self) -> list[int]:
        return [*self._prompt, *self.drawn]

    def _accept(self, token: int) -> bool:
        """Take a token into the answer; True if it ends there."""
        if token in self._ends:
            self._finish("end")
            return True
        if token in self._stops:
            self._finish("stop")
            return True
        self.drawn.append(token)
        assert self._drawer is not None
        if self._drawer.last_logprob is not None:
            self._told.append(self._drawer.last_logprob)
            self.mailbox.put(self._drawer.last_logprob)
        for event in self._text.push(self._piece(token), token, len(self.drawn)):
            self.mailbox.put(event)
        if self._text.stopped:
            self._finish("stop")
        elif len(self.drawn) == self.request.options.max_tokens:
            self._finish("max_tokens")
        return bool(self._last)

    def settle(self, native: BackendContext, cache: Cache) -> None:
        """Drop from the cache what was guessed wrong; keep places to go back to."""
        slot = self.job.slot
        if self.rows == 0:
            cache.checkpoint(native, slot, now=self.left == 0)
            if self.left == 0:
                self.tokens, self.start, self.rows = self._held, len(slot.tokens), 1
            return
        valid, self._valid = self._valid, None
        if valid is None:
            return
        if valid < len(slot.tokens):
            held = list(slot.tokens[:valid])
            kept = cache.cut(native, slot, valid)
            self.tokens = [*held[kept:], *self.tokens]
        self.start = len(slot.tokens)
        if self._last:
            self._end()

    def _finish(self, reason: FinishReason) -> None:
        for event in self._text.finish(len(self.drawn)):
            self.mailbox.put(event)
        if self._text.stopped:  # a stop string inside of what was held back
            reason = "stop"
        report = self._report or CacheReport(matched=0, evaluated=0, reason="stopped")
        usage = Usage(
            prompt_tokens=len(self._prompt),
            cached_tokens=report.reused,
            completion_tokens=len(self.drawn),
            predicted_tokens=self._guessed_right,
        )
        self.result = GenerationResult(
            text=self._text.text,
            reasoning=self._text.reasoning,
            tokens=tuple(self.drawn),
            finish_reason=reason,
            prompt_tokens=len(self._prompt),
            cache=report,
            usage=usage,
            logprobs=tuple(self._told),
            receipt=self._receipt(),
            statistics=self._trace.statistics(usage),
        )
        self._last = (usage, Finish(reason=reason))
        if self._valid is None:
            self._end()

    def _end(self) -> None:
        """Tell the reader, who may go on with the sequence then."""
        assert self.result is not None
        self._trace.end(self.result.finish_reason, self.result.statistics)
        for event in self._last:
            self.mailbox.put(event)
        self.drop()

    def _receipt(self) -> Receipt:
        return Receipt.of(
            self.engine.info,
            self.engine.params,
            self.request.sampling,
            self.request.options,
            seed=None if self._drawer is None else self._drawer.seed,
            prompt=self._prompt,
            tokens=self.drawn,
        )

    def fail(self, error: BaseException) -> None:
        """Let the reader raise it, and the sequence go."""
        self.error = error
        self.job.end()
        self.drop()

    def drop(self) -> None:
        """Nothing more will come."""
        self.over = True
        if self._drawer is not None:
            self._drawer.close()
        self._trace.fail(self.error, len(self.drawn))  # does nothing after an end
        self.mailbox.close()
