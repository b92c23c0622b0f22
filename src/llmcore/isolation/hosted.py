"""
The real objects in the child, with the little that is done there beside them.

Anything else that is asked of them goes to the engine's own object as it is.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcore.isolation.alarm import Alarm
from llmcore.isolation.memory import SharedMemory
from llmcore.isolation.wire import Created, Drawn
from llmcore.spi import (
    Backend,
    BackendContext,
    BackendModel,
    BackendSampler,
    Batch,
)
from llmcore.values import (
    Capability,
    ContextParams,
    ModelInfo,
    ModelParams,
    SamplingParams,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmcore.engine.sampling import Sampler


def create_backend(factory: str) -> Backend:
    """What ``"module:attribute"`` makes."""
    module, _, attribute = factory.partition(":")
    made = attrgetter(attribute)(importlib.import_module(module))()
    if not isinstance(made, Backend):
        raise TypeError(f"not a llmcore.spi.Backend: {type(made).__name__}")
    return made


class HostedBackend:
    """The backend; lives until `close`."""

    def __init__(self, real: Backend) -> None:
        self.real = real

    def load_model(
        self, path: bytes | None, params: ModelParams, progress: Callable[[float], bool]
    ) -> HostedModel:
        """A model."""
        file = None if path is None else Path(os.fsdecode(path))
        return HostedModel(self.real.load_model(file, params, progress))

    def close(self) -> None:
        """Free it."""
        self.real.close()


class HostedModel:
    """A model; lives until `close`."""

    def __init__(self, real: BackendModel) -> None:
        self.real = real

    @property
    def info(self) -> ModelInfo:
        """The facts."""
        return self.real.info

    def create_context(
        self, params: ContextParams, memory: SharedMemory
    ) -> HostedContext:
        """A context whose numbers the parent reads from the memory."""
        return HostedContext(self, self.real.create_context(params), memory)

    def close(self) -> None:
        """Free it."""
        self.real.close()


class HostedContext:
    """A context; lives until `close`."""

    def __init__(
        self, model: HostedModel, real: BackendContext, memory: SharedMemory
    ) -> None:
        self.real = real
        self._model = model.real
        self._capabilities = model.info.capabilities
        self._memory = memory
        self._samplers: dict[int, BackendSampler] = {}
        can_abort = Capability.ABORT in self._capabilities
        self.alarm = Alarm(real.abort if can_abort else lambda stop: None)

    def created(self) -> Created:
        """What the parent wants to know of it."""
        return Created(self.real.params, self.real.can_shift)

    def decode(
        self,
        moment: int,
        tokens: list[int],
        positions: list[int],
        sequences: list[int],
        outputs: list[bool],
        draws: list[tuple[int, int]],
    ) -> list[Drawn]:
        """
        Evaluate; only an abort after that moment counts.

        Args:
            draws: Rows, each with the sampler that will most likely be used there.

        Returns:
            What they drew, up to one that failed: it will be asked for again.
        """
        self.alarm.allow(moment)
        self.real.decode(Batch(tokens, positions, sequences, outputs))
        drawn: list[Drawn] = []
        with suppress(Exception):
            for row, number in draws:
                drawn.append(self.sample(row, number, []))
        return drawn

    def clear(self, sequence: int | None, data: bool) -> None:
        """Empty one cache or all."""
        self.real.clear(sequence, data=data)

    def logits(self, row: int) -> None:
        """Put the logits where the parent sees them."""
        self._show(self.real.logits(row))

    def embedding(self, sequence: int) -> None:
        """Put the vector where the parent sees it."""
        self._show(self.real.embedding(sequence))

    def _show(self, numbers: NDArray[Any]) -> None:
        self._memory.floats(numbers.size)[:] = numbers

    # -- sampling ----------------------------------------------------------------------

    def create_sampler(self, number: int, params: SamplingParams, seed: int) -> bool:
        """The engine's own, else core's; False if there is neither."""
        sampler: BackendSampler | None = None
        if Capability.NATIVE_SAMPLING in self._capabilities:
            sampler = self.real.create_sampler(params, seed)
        if sampler is None and Capability.LOGITS in self._capabilities:
            from llmcore.engine.sampling import Sampler

            sampler = CoreSampler(Sampler(params, seed, piece=self._model.piece))
        if sampler is not None:
            self._samplers[number] = sampler
        return sampler is not None

    def sample(self, row: int, number: int, accepted: list[int]) -> Drawn:
        """A token for a row, after the sampler was told of some others."""
        sampler = self._samplers[number]
        for token in accepted:
            sampler.accept(token)
        if isinstance(sampler, CoreSampler):
            token = sampler.core.sample(self.real.logits(row))
        else:
            token = self.real.sample(row, sampler)
        return token, self._model.piece(token)

    def close_sampler(self, number: int) -> None:
        """Free a sampler."""
        sampler = self._samplers.pop(number, None)
        if sampler is not None:
            sampler.close()

    def close(self) -> None:
        """Free the context and what hangs on it."""
        self.alarm.close()
        for number in list(self._samplers):
            self.close_sampler(number)
        self.real.close()


class CoreSampler(BackendSampler):
    """Core's own sampler, here so that the logits need not leave the process."""

    def __init__(self, core: Sampler) -> None:
        self.core = core

    def accept(self, token: int) -> None:
        """Count a token for the penalties."""
        self.core.accept(token)

    def close(self) -> None:
        """Nothing to free."""


Hosted = HostedBackend | HostedModel | HostedContext
