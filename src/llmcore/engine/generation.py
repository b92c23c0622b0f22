"""
`Generation`: one answer, from its prompt to its end, a step at a time.

Plain state behind a `Stream`: it does not know the stream, so a stream that is dropped
can be cleaned up.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define, field, frozen

from llmcore.engine.job import Job
from llmcore.engine.loop import StepLoop
from llmcore.engine.slot import CacheReport
from llmcore.engine.text import TextAssembler
from llmcore.lifecycle import Operation
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from llmcore.spi import BackendContext, BackendSampler

FinishReason = Literal["end", "stop", "max_tokens", "context_full", "stopped"]


@frozen(kw_only=True)
class GenerationResult:
    """
    An answer.

    Attributes:
        text: All of it.

        tokens: As they were drawn; without the token that ended it.

        finish_reason: ``"end"``: the model ended its answer; ``"stop"``: a stop string;
            ``"max_tokens"``; ``"context_full"``: the sequence can hold no more;
            ``"stopped"``: `Stream.stop` was called.

        prompt_tokens: Length of the prompt.

        cache: What of the prompt was in the cache.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cache: CacheReport


@frozen(kw_only=True)
class GenerationRequest:
    """What to generate: a prompt, how to choose tokens, and when to end."""

    prompt: Sequence[int]
    sampling: SamplingParams = field(factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@define(eq=False)
class Generation:
    """
    Lives until its answer ends; each `step` evaluates at most once.

    Args:
        job: Its claim on the sequence; ended here.

        loop: Of the context.

        piece: Bytes of a token, looked up as a part of this work.

        end_tokens: Those that end an answer.
    """

    request: GenerationRequest
    job: Job
    loop: StepLoop
    piece: Callable[[int, Operation], bytes]
    end_tokens: frozenset[int]
    tokens: list[int] = field(factory=list, init=False)
    result: GenerationResult | None = field(default=None, init=False)
    stopping: bool = field(default=False, init=False)
    _texts: list[str] = field(factory=list, init=False)
    _assembler: TextAssembler = field(init=False)
    _choose: Callable[[BackendContext, int], int] = field(init=False)
    _native: BackendSampler | None = field(default=None, init=False)
    _cache: CacheReport | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._assembler = TextAssembler(self.request.stop)

    def step(self) -> str:
        """
        Advance by one token; the text that became certain, which may be none.

        `result` is set when the answer is complete. Whatever is raised here, the
        sequence is free again.
        """
        try:
            return self._advance()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the sequence back; twice is fine, also in the collector."""
        if self._native is not None:
            self.loop.retire(self._native)
            self._native = None
        self.job.end()

    def _advance(self) -> str:
        if self.stopping:
            return self._finish("stopped")
        if self._cache is None:
            token = self._begin()
        elif len(self.job.slot.tokens) >= self.loop.size:
            return self._finish("context_full")
        else:
            token = self.loop.evaluate(self.job, self.tokens[-1:], self._choose)
        if token in self.end_tokens:
            return self._finish("end")
        self.tokens.append(token)
        text = self._assembler.push(self.piece(token, self.job))
        self._texts.append(text)
        if self._assembler.stopped:
            return text + self._finish("stop")
        if len(self.tokens) == self.request.max_tokens:
            return text + self._finish("max_tokens")
        return text

    def _begin(self) -> int:
        """Evaluate what of the prompt is not cached, and draw the first token."""
        prompt = self.request.prompt
        report = self.loop.reuse(self.job, prompt)
        self._choose = self._chooser()
        token = self.loop.evaluate(self.job, prompt[report.reused :], self._choose)
        self._cache = report
        return token

    def _chooser(self) -> Callable[[BackendContext, int], int]:
        """
        How tokens are drawn.

        The engine may draw where that cannot be told from core's own sampler: greedy,
        or without a seed. With a seed, every backend draws what core draws.
        """
        params = self.request.sampling
        window = params.penalty_last_n if params.has_penalties else 0
        seen = self.request.prompt[-window:] if window else ()
        if params.seed is None or params.temperature == 0:
            seed = secrets.randbits(32)
            sampler = self.loop.native_sampler(self.job, params, seed, seen)
            if sampler is not None:
                self._native = sampler
                return lambda native, row: native.sample(row, sampler)
        from llmcore.engine.sampling import Sampler

        core = Sampler(params)
        for token in seen:
            core.accept(token)
        return lambda native, row: core.sample(native.logits(row))

    def _finish(self, reason: FinishReason) -> str:
        rest = self._assembler.finish()
        if self._assembler.stopped:  # a stop string inside of what was held back
            reason = "stop"
        self._texts.append(rest)
        assert self._cache is not None or reason == "stopped"
        self.result = GenerationResult(
            text="".join(self._texts),
            tokens=tuple(self.tokens),
            finish_reason=reason,
            prompt_tokens=len(self.request.prompt),
            cache=self._cache or CacheReport(reused=0, evaluated=0, reason="stopped"),
        )
        self.close()
        return rest
