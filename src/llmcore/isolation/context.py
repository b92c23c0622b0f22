"""
`IsolatedContext`: stands for a context in the child.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmcore.errors import (
    BackendCrashedError,
    BackendError,
    ContextCreationError,
    DecodeAbortedError,
    DecodeError,
    LlmcoreError,
)
from llmcore.isolation.checks import (
    check_bounds,
    check_created,
    check_drawn,
    check_memory,
)
from llmcore.isolation.history import History
from llmcore.isolation.lane import Check, Lane
from llmcore.isolation.memory import SharedMemory
from llmcore.isolation.process import EngineProcess
from llmcore.isolation.sampler import Guesses, IsolatedSampler
from llmcore.isolation.wire import Created, Drawn
from llmcore.spi import BackendContext, BackendSampler, Batch
from llmcore.values import (
    CacheKind,
    ContextMemory,
    ContextParams,
    SamplingParams,
    evolve,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.isolation.model import IsolatedModel

FLOAT = 4
"""Bytes of a number in the shared memory."""


class IsolatedContext(BackendContext):
    """
    Lives until `close`.

    Args:
        model: Of the model.

        params: How to create it.
    """

    def __init__(self, model: IsolatedModel, params: ContextParams) -> None:
        self.host = model.host
        self._model = model
        self._number = self.host.number()
        # A policy of the caller's own is nothing that an engine has to see.
        self._asked = evolve(params, scheduling="parallel")
        self._clock = itertools.count(1)  # see `Alarm`
        self._allowed = 0
        self._samplers: dict[int, IsolatedSampler] = {}
        self._guesses = Guesses()
        remembers = model.info.cache_kind is not CacheKind.NONE
        self._history = History(remembers and self.host.replays)
        self._process: EngineProcess | None = None
        self._created = self.host.run(self._begin, ContextCreationError)
        self._params = evolve(self._created.params, scheduling=params.scheduling)
        assert isinstance(self._params.context_size, int)
        self._check_bounds = check_bounds(self._params.context_size)

    # -- in which process --------------------------------------------------------------

    def _begin(self, process: EngineProcess) -> Created:
        created = self._open(process)
        self._process = process
        return created

    def _open(self, process: EngineProcess) -> Created:
        """Create it there, with a connection and memory of its own."""
        info = self._model.info
        self._model.ready(process)
        size = FLOAT * max(info.vocab_size, info.embedding_size)
        self._memory = SharedMemory.create(size)
        try:
            self._lane: Lane = process.open_lane(self._memory)
        finally:
            self._memory.close_handle()
        model, number = self._model.number, self._number
        try:
            created: Created = self._lane.ask(
                "create_context", model, number, self._asked, check=check_created
            )
        except BaseException:
            self._abandon(process)
            raise
        return created

    def _abandon(self, process: EngineProcess) -> None:
        process.discard(self._number)
        self._lane.close()

    def _ready(self, process: EngineProcess) -> Lane:
        """The connection, to this context with all that it held."""
        if self._process is not process:
            self._lane.close()
            created = self._open(process)
            try:
                if created != self._created:
                    raise BackendError(
                        "the context is another one since the engine was started "
                        "again: create a new one"
                    )
                self._replay()
            except BaseException:
                self._abandon(process)
                raise
            self._process = process
        return self._lane

    def _replay(self) -> None:
        """Bring the new context to where the old one was."""
        number, ask = self._number, self._lane.ask
        moment = next(self._clock)  # it can be aborted too
        for sampler in self._samplers.values():
            arguments = sampler.number, sampler.params, secrets.randbits(32)
            ask("create_sampler", number, *arguments)
            sampler.untold = list(sampler.seen)
        try:
            for op, *details in self._history.steps(self._params.batch_size):
                if op == "decode":
                    details = [moment, *details, []]
                ask(op, number, *details)
        except (BackendCrashedError, DecodeAbortedError):
            raise
        except LlmcoreError:  # what cannot be had again is lost; core will find out
            ask("clear", number, None, False)
            self._history.cleared(None)

    def _ask(
        self,
        op: str,
        *arguments: Any,
        check: Check | None = None,
        failure: Callable[[str], LlmcoreError] = BackendError,
    ) -> Any:
        return self.host.run(
            lambda process: self._ready(process).ask(
                op, self._number, *arguments, check=check
            ),
            failure,
        )

    # -- evaluating --------------------------------------------------------------------

    @property
    def params(self) -> ContextParams:
        """As the child told it once."""
        return self._params

    def decode(self, batch: Batch) -> None:
        """Evaluate in the child, and draw what will most likely be asked for next."""
        batch = Batch(*map(list, batch))  # type: ignore[arg-type]
        draws = self._guesses.draws(batch)
        try:
            drawn: list[Drawn] = self._ask(
                "decode",
                *(self._allowed, *batch, draws),
                check=check_drawn(self._model.info.vocab_size, len(draws)),
                failure=DecodeError,
            )
        except LlmcoreError as error:
            self._reconcile(error, batch)
            raise
        self._history.decoded(batch)
        self._model.pieces.update(drawn)
        self._guesses.fill(draws, [token for token, _ in drawn])

    def _reconcile(self, error: LlmcoreError, batch: Batch | None = None) -> None:
        """A part of a batch that failed may be there, and all else may be lost."""
        if not self.host.replays or isinstance(error, BackendCrashedError):
            return
        # Before the history hears of the batch: a new process must not be told of it.
        ends = [self.bounds(number)[1] for number in range(self._params.sequences)]
        if batch is not None:
            self._history.decoded(batch)
        for number, end in enumerate(ends):
            self._history.kept(number, end)

    def abort(self, stop: bool) -> None:
        """Reach the child beside the call that runs; see `Alarm`."""
        moment = next(self._clock)
        if stop:
            self.host.process.ring(self._number, moment)
        else:
            self._allowed = moment

    def logits(self, row: int) -> NDArray[np.float32]:
        """A view of the memory that the child has just written to."""
        self._ask("logits", row)
        return self._memory.floats(self._model.info.vocab_size)

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        """A copy of what the child has just written."""
        self._ask("embedding", sequence)
        return self._memory.floats(self._model.info.embedding_size).copy()

    # -- sampling ----------------------------------------------------------------------

    def create_sampler(
        self, params: SamplingParams, seed: int
    ) -> IsolatedSampler | None:
        """The engine's own, else core's own; both draw in the child."""
        sampler = IsolatedSampler(self.host.number(), params, self._forget)
        if not self._ask("create_sampler", sampler.number, params, seed):
            return None
        self._samplers[sampler.number] = sampler
        return sampler

    def sample(self, row: int, sampler: BackendSampler) -> int:
        """Draw in the child, unless that is done already."""
        assert isinstance(sampler, IsolatedSampler)
        token = self._guesses.take(row, sampler)
        if token is None:
            token = self._draw(row, sampler)
        sampler.seen.append(token)
        return token

    def _draw(self, row: int, sampler: IsolatedSampler) -> int:
        check = check_drawn(self._model.info.vocab_size, 1)

        def draw(process: EngineProcess) -> Drawn:
            lane = self._ready(process)
            untold, sampler.untold = sampler.untold, []
            number = self._number
            drawn: Drawn = lane.ask(
                "sample",
                *(number, row, sampler.number, untold),
                check=lambda drawn: check([drawn]),
            )
            return drawn

        token, piece = self.host.run(draw, BackendError)
        self._model.pieces[token] = piece
        return token

    def _forget(self, sampler: IsolatedSampler) -> None:
        self._guesses.forget(sampler)
        if self._samplers.pop(sampler.number, None) and self._lives:
            with suppress(BackendCrashedError):
                self._lane.ask("close_sampler", self._number, sampler.number)

    # -- the caches --------------------------------------------------------------------

    def bounds(self, sequence: int) -> tuple[int, int]:
        """First and last position in the child."""
        bounds: tuple[int, int] = self._ask(
            "bounds", sequence, check=self._check_bounds
        )
        return bounds

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        """Empty one cache or all."""
        self._ask("clear", sequence, data)
        self._history.cleared(sequence)

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        """Remove a part."""
        removed: bool = self._ask("remove", sequence, start, end)
        if removed:
            self._history.removed(sequence, start, end)
        return removed

    def copy(self, source: int, target: int) -> None:
        """Copy a sequence."""
        self._ask("copy", source, target)
        self._history.copied(source, target)

    @property
    def can_shift(self) -> bool:
        """As the child told it once."""
        return self._created.can_shift

    def shift(self, sequence: int, start: int, end: int, delta: int) -> None:
        """Move positions."""
        self._ask("shift", sequence, start, end, delta)
        self._history.shifted(sequence, start, end, delta)

    def save_state(self, sequence: int) -> bytes:
        """The child's bytes."""
        state: bytes = self._ask("save_state", sequence)
        self._history.saved(sequence, state)
        return state

    def load_state(self, sequence: int, data: bytes) -> None:
        """Hand bytes to the child."""
        try:
            self._ask("load_state", sequence, bytes(data))
        except LlmcoreError as error:  # the sequence is empty or unchanged
            self._reconcile(error)
            raise
        self._history.loaded(sequence, data)

    def memory(self) -> ContextMemory:
        """What the child says."""
        memory: ContextMemory = self._ask("memory", check=check_memory)
        return memory

    @property
    def _lives(self) -> bool:
        """Whether there is anything to free: a dead process has freed it."""
        return self._process is self.host.process

    def close(self) -> None:
        """Free it in the child, if that lives."""
        try:
            if self._lives:
                with suppress(BackendCrashedError):
                    self._lane.ask("close", self._number)
        finally:
            self._lane.close()
