"""
`Sequence`: one line of tokens in a context, with one user at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmcore.engine.generation import Generation, GenerationRequest
from llmcore.engine.slot import Slot
from llmcore.errors import ContextOverflowError, LlmcoreError, NoResultError
from llmcore.lifecycle import Resource
from llmcore.stream import Stream
from llmcore.values import Capability, SamplingParams, merge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.context import Context
    from llmcore.engine.job import Job
    from llmcore.engine.sampling import Sampler


class Sequence(Resource):
    """
    Lives until it or its context is disposed; its place can be taken again as soon as
    `dispose` returns.

    Sequences of one context share nothing that can be seen. Any thread may use it, one
    at a time: a second one gets `SequenceBusyError`.

    Made by `Context.get_sequence`.
    """

    def __init__(self, context: Context, slot: Slot) -> None:
        self.context = context
        self._slot = slot
        self._loop = context._loop
        self._sampler: tuple[SamplingParams, Sampler] | None = None
        super().__init__(
            "sequence",
            parent=context,
            handle=slot,
            teardown=context._loop.give_back,
        )

    # -- state -------------------------------------------------------------------------

    @property
    def tokens(self) -> list[int]:
        """The tokens evaluated so far."""
        self._check()
        return list(self._slot.tokens)

    @property
    def position(self) -> int:
        """How many tokens were evaluated so far."""
        self._check()
        return len(self._slot.tokens)

    @property
    def size(self) -> int:
        """How many tokens it can hold."""
        return self._loop.size

    def truncate(self, length: int) -> int:
        """
        Keep only the first tokens, so that others can follow.

        Args:
            length: How many to keep, 0 to `position`.

        Returns:
            How many were kept: ``length``, or 0 if this cache cannot drop a part of
            itself (see `Capability.PARTIAL_REMOVE`) and had to be emptied.
        """
        with self._job() as job:
            if not 0 <= length <= len(self._slot.tokens):
                raise ValueError(
                    f"length must be between 0 and {len(self._slot.tokens)}, "
                    f"got {length}"
                )
            self._sampler = None
            return self._loop.truncate(job, length)

    def clear(self) -> None:
        """Empty it."""
        self.truncate(0)

    def fork(self) -> Sequence:
        """
        Take another sequence of the context and make it an independent copy of this.

        The cache is copied where the backend can, else its tokens are evaluated again.

        Raises:
            NoSequenceLeftError: All are taken; nothing was changed.
        """
        with self._job() as job:
            twin = self.context.get_sequence()
            try:
                if not self._loop.copy(job, twin._slot) and self._slot.tokens:
                    twin.evaluate(self._slot.tokens)
            except BaseException:
                twin.dispose()
                raise
        return twin

    # -- by hand -----------------------------------------------------------------------

    def evaluate(self, tokens: Iterable[int]) -> None:
        """
        Append tokens, in one go however many; `logits` and `sample` follow the last.

        Args:
            tokens: Token numbers; none is fine and does nothing.

        Raises:
            ContextOverflowError: They do not fit; nothing was changed.

            SequenceBusyError: A stream or another thread uses this sequence.

            DecodeError: The engine failed; the sequence is as it was before, or empty
                if its cache cannot drop a part of itself.
        """
        tokens = list(tokens)
        self.context.model.check_tokens(tokens)
        with self._job() as job:
            if not tokens:
                return
            self._loop.check_room(self._slot, len(tokens), "the input")
            before = len(self._slot.tokens)
            try:
                self._slot.logits = self._loop.evaluate(job, tokens, self._read)
            except Exception:
                # Back to where it was; if that fails too, the next use settles it.
                with suppress(LlmcoreError):
                    self._loop.truncate(job, before)
                raise
            if self._sampler is not None:
                for token in tokens:
                    self._sampler[1].accept(token)

    def _read(self, native: Any, row: int) -> NDArray[np.float32] | None:
        if Capability.LOGITS not in self.context.model.capabilities:
            return None
        logits: NDArray[np.float32] = native.logits(row).copy()
        return logits

    @property
    def logits(self) -> NDArray[np.float32]:
        """
        What the model expects next: shape ``(vocab_size,)``, yours to change.

        Raises:
            CapabilityError: The backend has none.

            NoResultError: Nothing was evaluated by hand since the last change.
        """
        self._check()
        self.context.model.require(Capability.LOGITS)
        logits: NDArray[np.float32] | None = self._slot.logits
        if logits is None:
            raise NoResultError(
                f"{self._node.label} has no logits: call evaluate() first"
            )
        return logits.copy()

    def sample(self, params: SamplingParams | None = None, **fields: Any) -> int:
        """
        Choose the next token after `evaluate`; does not append it.

        Random numbers go on from call to call while the parameters stay the same, so a
        loop of `sample` and `evaluate` draws what `generate` draws.

        Args:
            params: How to choose.

            fields: Or the fields of `SamplingParams` one by one, over ``params``.
        """
        params = merge(SamplingParams, params, fields)
        logits = self.logits
        if self._sampler is None or self._sampler[0] != params:
            from llmcore.engine.sampling import Sampler

            sampler = Sampler(params)
            for token in self._slot.tokens[-params.penalty_last_n or None :]:
                sampler.accept(token)
            self._sampler = (params, sampler)
        return self._sampler[1].choose(logits)

    # -- generating --------------------------------------------------------------------

    def generate(
        self,
        tokens: Iterable[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        **fields: Any,
    ) -> Stream:
        """
        Continue a prompt. What the sequence holds of it already is not evaluated again.

        Args:
            tokens: The whole prompt, not only what is new; one token or more.

            params: How to choose tokens.

            max_tokens: End after so many; None means when the model or the space ends.

            stop: End before this text, or the earliest of these.

            fields: Or the fields of `SamplingParams` one by one, over ``params``.

        Returns:
            The answer as a stream, which has this sequence until it ends.

        Raises:
            ContextOverflowError: The prompt does not fit; nothing was changed.

            SequenceBusyError: A stream or another thread uses this sequence.
        """
        return self._stream(
            list(tokens),
            merge(SamplingParams, params, fields),
            max_tokens=max_tokens,
            stop=stop,
        )

    def _stream(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        max_tokens: int | None,
        stop: str | Iterable[str],
        on_result: Any = None,
    ) -> Stream:
        model = self.context.model
        model.check_tokens(prompt)
        if not prompt:
            raise ValueError("the prompt must have at least one token")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        if len(prompt) > self.size:
            raise ContextOverflowError(len(prompt), self.size)
        request = GenerationRequest(
            prompt=prompt,
            sampling=params,
            max_tokens=max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        job = self._job()
        try:
            generation = Generation(
                request=request,
                job=job,
                loop=self._loop,
                piece=model._piece,
                end_tokens=model.info.end_tokens,
            )
            self._sampler = None
            return Stream(generation, on_result, self)
        except BaseException:
            job.end()
            raise

    def _embed(self, tokens: list[int]) -> NDArray[np.float32]:
        """The vector of a whole input."""
        if not tokens:
            raise ValueError("the text has no tokens: there is nothing to embed")
        with self._job() as job:
            self._loop.check_room(self._slot, len(tokens), "the text")
            number = self._slot.number
            return self._loop.evaluate(
                job, tokens, lambda native, row: native.embedding(number)
            )

    def _job(self) -> Job:
        return self._loop.job(self._node, self._slot)
