"""
`Sequence`: one line of tokens in a context, with one user at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from llmcore.engine import saving
from llmcore.engine.generation import Generation, GenerationRequest
from llmcore.engine.receipt import Receipt
from llmcore.engine.reuse import common_prefix
from llmcore.engine.slot import Slot
from llmcore.errors import (
    CapabilityError,
    ContextOverflowError,
    LlmcoreError,
    NoResultError,
    SequenceBusyError,
)
from llmcore.lifecycle import Resource
from llmcore.state_file import OnMismatch, Path, SavedState
from llmcore.stream import Stream
from llmcore.twins import twin
from llmcore.values import Capability, SamplingParams, merge, merge_options

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
        self._engine = context._engine
        self._sampler: tuple[SamplingParams, Sampler] | None = None
        super().__init__(
            "sequence",
            parent=context,
            handle=slot,
            teardown=context._engine.give_back,
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
        return self._engine.cache.size

    def truncate(self, length: int) -> int:
        """
        Keep only the first tokens, so that others can follow.

        Args:
            length: How many to keep, 0 to `position`.

        Returns:
            How many were kept: ``length``. Less if this cache cannot drop a part of
            itself (see `Capability.PARTIAL_REMOVE`): it went back to the last place
            that it can go back to, or to nothing.
        """
        with self._job() as job:
            if not 0 <= length <= len(self._slot.tokens):
                raise ValueError(
                    f"length must be between 0 and {len(self._slot.tokens)}, "
                    f"got {length}"
                )
            self._sampler = None
            return self._engine.truncate(job, length)

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
                if not self._engine.copy(job, twin._slot) and self._slot.tokens:
                    twin.evaluate(self._slot.tokens)
                if self._sampler is not None:
                    params, sampler = self._sampler
                    twin._sampler = (params, sampler.fork())
            except BaseException:
                twin.dispose()
                raise
        return twin

    atruncate, aclear, afork = twin(truncate), twin(clear), twin(fork)

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """
        A ``with`` block after which this sequence is as before if the block raised.

        Whatever was evaluated, generated, truncated or shifted inside is undone: the
        cache is cut back where it can be, and what is missing is evaluated again.
        Blocks may be nested.

        Raises:
            SequenceBusyError: At the end, if a stream from inside still runs.
        """
        self._check()
        tokens, logits, sampler = self.tokens, self._slot.logits, self._sampler
        saved = None if sampler is None else (sampler[0], sampler[1].fork())
        try:
            yield self
        except BaseException:
            try:
                kept = self.truncate(common_prefix(self._slot.tokens, tokens))
                self.evaluate(tokens[kept:])
                self._slot.logits, self._sampler = logits, saved
            except SequenceBusyError:
                raise
            except LlmcoreError:  # disposed, or the engine is dead: not the news here
                pass
            raise

    # -- on disk -----------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """
        Write what this sequence holds to a file, whole or not at all.

        The file says which model and engine it belongs to, and holds the tokens beside
        the engine's state.

        Raises:
            OSError: The file cannot be written; an old one is untouched.

            SequenceBusyError: A stream or another thread uses this sequence.
        """
        self._save(path)

    def _save(self, path: Path, chat: Mapping[str, Any] | None = None) -> None:
        with self._job() as job:
            saving.save(self._engine, job, path, self._backend, chat)

    def load(self, path: Path, *, on_mismatch: OnMismatch = "error") -> None:
        """
        Replace what this sequence holds by a saved one.

        A state that holds tokens only, because the backend has no other, is evaluated.

        Args:
            path: Written by `save`, or by `ChatSession.save`.

            on_mismatch: ``"evaluate"`` evaluates the saved tokens if the state itself
                belongs to another engine, build or type of cache.

        Raises:
            OSError: The file cannot be read.

            StateMismatchError: It belongs to something else; names what differs.
                Nothing was changed.

            StateError: It is damaged, or not a state file. Nothing was changed, unless
                the engine itself refused the state: then this sequence is empty.
        """
        self._load(path, on_mismatch, lambda saved: None)

    def _load(
        self,
        path: Path,
        on_mismatch: OnMismatch,
        believe: Callable[[SavedState], object],
    ) -> None:
        with self._job() as job:
            self._sampler = None
            saving.load(self._engine, job, path, self._backend, on_mismatch, believe)

    asave, aload = twin(save), twin(load)

    @property
    def _backend(self) -> str:
        return self.context.model.backend.name

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
        self._check()
        self._engine.pieces.check(tokens)
        with self._job() as job:
            if not tokens:
                return
            before = len(self._slot.tokens)
            try:
                self._slot.logits = self._engine.evaluate(job, tokens, self._read)
            except Exception:
                # Back to where it was; if that fails too, the next use settles it.
                with suppress(LlmcoreError):
                    self._engine.truncate(job, before)
                raise
            if self._sampler is not None:
                for token in tokens:
                    self._sampler[1].accept(token)

    aevaluate = twin(evaluate)

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

            sampler = Sampler(params, piece=self._engine.pieces.of)
            for token in self._slot.tokens[-params.lookback :]:
                sampler.accept(token)
            self._sampler = (params, sampler)
        return self._sampler[1].choose(logits)

    # -- generating --------------------------------------------------------------------

    def generate(
        self,
        tokens: Iterable[int],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> Stream:
        """
        Continue a prompt. What the sequence holds of it already is not evaluated again.

        The engine begins at once, and runs a few tokens ahead of the reader.

        Args:
            tokens: The whole prompt, not only what is new; one token or more.

            params: How to choose tokens.

            options: The fields of `GenerationParams`, such as ``max_tokens``, and those
                of `SamplingParams`, over ``params``.

        Returns:
            The answer as a stream, which has this sequence until it was read, closed or
            dropped.

        Raises:
            ContextOverflowError: The prompt does not fit; nothing was changed.

            SequenceBusyError: A stream or another thread uses this sequence, and
                ``wait`` was not said.

            QueueFullError: Too many wait already.

            CapabilityError: An option needs what the backend does not have.
        """
        prompt = list(tokens)
        self._check()
        self._engine.pieces.check(prompt)
        if not prompt:
            raise ValueError("the prompt must have at least one token")
        if len(prompt) > self.size:
            raise ContextOverflowError(len(prompt), self.size)
        sampling, more = merge_options(params, options)
        return self._stream(
            GenerationRequest(prompt=prompt, sampling=sampling, options=more)
        )

    def replay(self, receipt: Receipt) -> Stream:
        """
        Generate what a receipt was written for, from an empty sequence.

        Raises:
            ValueError: The receipt says that its answer cannot be repeated.

            StateMismatchError: Model, engine or context differ; names the field.
        """
        self._check()
        receipt.check(self._engine.info, self._engine.params)
        self.clear()
        return self.generate(receipt.prompt, receipt.sampling, **receipt.options)

    def _stream(self, request: GenerationRequest, on_result: Any = None) -> Stream:
        model, options = self.context.model, request.options
        self._engine.pieces.check((*request.sampling.logit_bias, *options.stop_tokens))
        if options.overflow != "error":
            model.require(Capability.PARTIAL_REMOVE, Capability.SHIFT)
            if not self._engine.cache.can_shift:
                raise CapabilityError(
                    f"{self.context._node.label} cannot shift positions, although its "
                    "model could: create it with kv_type_k='f16', or use "
                    "overflow='error'"
                )
        if options.predictor is not None:
            model.require(Capability.PARTIAL_REMOVE)
            options.predictor.check(model)
        job = self._engine.job(
            self._node, self._slot, wait=options.wait, timeout=options.timeout
        )
        try:
            generation = Generation(request, job, self._engine)
            self._sampler = None
            stream = Stream(generation, on_result, self)
            self._engine.loop.submit(generation)
        except BaseException:
            job.end()
            raise
        return stream

    def _embed(self, tokens: list[int]) -> NDArray[np.float32]:
        """The vector of a whole input."""
        if not tokens:
            raise ValueError("the text has no tokens: there is nothing to embed")
        with self._job() as job:
            number = self._slot.number
            return self._engine.evaluate(
                job, tokens, lambda native, row: native.embedding(number), "the text"
            )

    def _job(self) -> Job:
        return self._engine.job(self._node, self._slot)
