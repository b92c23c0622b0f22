"""
`Context`: memory for some sequences over one model, and the place where work runs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from llmcore.engine.engine import Engine
from llmcore.engine.slot import Slot
from llmcore.errors import (
    CapabilityError,
    NoSequenceLeftError,
    OperationTimeoutError,
    QueueFullError,
)
from llmcore.lifecycle import Exclusion, Resource, collect_forgotten
from llmcore.memory import Account, Footprint, Purpose, Reservation, spread
from llmcore.seam import first_look
from llmcore.sequence import Sequence
from llmcore.spi import BackendContext
from llmcore.twins import twin, unless_cancelled
from llmcore.values import Capability, ContextParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcore.memory.fitting import Fitted
    from llmcore.model import Model


@frozen(kw_only=True)
class MemoryInfo:
    """
    What a context uses: bytes, and tokens over all its sequences.

    ``token_count <= context_size`` and
    ``total_allocated >= model_size + kv_cache_size``.
    """

    model_size: int
    kv_cache_size: int
    compute_size: int
    token_count: int
    context_size: int
    total_allocated: int


class Context(Resource):
    """
    Lives until it or its model is disposed. Any thread may use it; the engine is asked
    one thing at a time.

    Made by `Model.create_context`. ``params`` is what was really given, and ``fitted``
    tells what was given up for lack of memory.
    """

    def __init__(
        self,
        model: Model,
        native: BackendContext,
        exclusion: Exclusion,
        reservation: Reservation | None = None,
    ) -> None:
        self.model = model
        self.fitted: Fitted | None = None
        self._reservation = reservation
        self.params: ContextParams = first_look(native, "params")
        self._engine: Engine = Engine(
            self.params,
            model.info,
            model._pieces,
            can_shift=first_look(native, "can_shift"),
        )
        can_abort = Capability.ABORT in model.capabilities
        super().__init__(
            "context",
            parent=model,
            handle=native,
            teardown=partial(_close, self._engine, reservation),
            interrupt=partial(native.abort, True) if can_abort else None,
            exclusion=exclusion,
            translate=model._node.translate,
        )
        self._engine.bind(self._node, native)

    # -- sequences ---------------------------------------------------------------------

    @property
    def sequences_left(self) -> int:
        """How many sequences can be taken now."""
        self._check()
        return self._engine.slots.left

    def get_sequence(
        self, *, wait: bool = False, timeout: float | None = None
    ) -> Sequence:
        """
        Take a sequence: empty, and yours until it is disposed.

        Args:
            wait: Wait until one is free, if all are taken.

            timeout: Seconds to wait at most; None means no limit.

        Raises:
            NoSequenceLeftError: All are taken.

            OperationTimeoutError: All are still taken.

            QueueFullError: ``max_waiting`` others wait already.
        """
        self._check()
        slots = self._engine.slots
        slot = slots.take()
        if slot is None:
            collect_forgotten()
            slot = slots.take()
        if slot is None and not wait:
            raise NoSequenceLeftError(
                f"all {self.params.sequences} sequences of {self._node.label} are "
                "taken: dispose one, create the context with more sequences, or say "
                "wait=True"
            )
        if slot is None:
            slot = self._wait_for_slot(timeout)
        return Sequence(self, slot)

    def _wait_for_slot(self, timeout: float | None) -> Slot:
        slots = self._engine.slots
        if slots.waiting >= self.params.max_waiting:
            raise QueueFullError(
                f"{slots.waiting} others wait for a sequence of {self._node.label} "
                "already: try again later, or create it with a larger max_waiting"
            )
        slot = slots.wait(timeout)
        if slot is None:
            raise OperationTimeoutError(
                f"all {self.params.sequences} sequences of {self._node.label} were "
                f"still taken after {timeout} s"
            )
        return slot

    async def aget_sequence(
        self, *, wait: bool = False, timeout: float | None = None
    ) -> Sequence:
        """`get_sequence` without blocking the event loop."""
        take = partial(self.get_sequence, wait=wait, timeout=timeout)
        return await unless_cancelled(take, undo=Sequence.dispose)

    create_sequence = get_sequence

    def clear(self, *, clear_data: bool = True) -> None:
        """
        Empty all sequences without making the context anew.

        Args:
            clear_data: Also overwrite the memory itself.

        Raises:
            BusyError: One of them is in use; nothing was changed.
        """
        self._check()
        try:
            self._engine.slots.clear_all(data=clear_data)
        finally:  # those who got in line meanwhile
            self._engine.loop.wake()

    aclear = twin(clear)

    # -- what else it can do -----------------------------------------------------------

    def embed(self, text: str, *, timeout: float = 0.0) -> NDArray[np.float32]:
        """
        The vector of a text, shape ``(embedding_size,)``, not normalised.

        Needs ``create_context(embeddings=True)``.

        Args:
            text: Any text, not empty.

            timeout: Seconds to wait for a free sequence.

        Raises:
            CapabilityError: The context was not created for embeddings.

            ContextOverflowError: The text does not fit; nothing was changed.

            NoSequenceLeftError: All are taken, and ``timeout`` is 0.

            OperationTimeoutError: All are still taken.
        """
        self._check()
        self.model.require(Capability.EMBEDDING)
        if not self.params.embeddings:
            raise CapabilityError(
                f"{self._node.label} was not created for embeddings: "
                "use create_context(embeddings=True)"
            )
        with self.get_sequence(wait=timeout > 0, timeout=timeout) as sequence:
            return sequence._embed(self.model.tokenize(text, add_bos=True))

    aembed = twin(embed)

    def memory_info(self) -> MemoryInfo:
        """What this context and its model use now."""
        with self._use() as native:
            memory = native.memory()
        model_size = self.model.info.size_bytes
        assert isinstance(self.params.context_size, int)
        return MemoryInfo(
            model_size=model_size,
            kv_cache_size=memory.kv_cache,
            compute_size=memory.compute,
            token_count=self._engine.slots.token_count,
            context_size=self.params.context_size * self.params.sequences,
            total_allocated=model_size + memory.kv_cache + memory.compute,
        )

    def account(self) -> Account:
        """What it was expected to use, may use by the budget, and uses, in bytes."""
        return Account(
            label=self._node.label,
            estimated=self.model.estimate(self.params),
            reserved={} if self._reservation is None else self._reservation.amounts,
            actual=self.footprint(),
        )

    def footprint(self) -> Footprint:
        """What the engine says that it uses; the weights of the model not included."""
        with self._use() as native:
            memory = native.memory()
        sizes: dict[Purpose, int] = {
            "cache": memory.kv_cache,
            "compute": memory.compute,
        }
        model = self.model
        return spread(sizes, model._devices, lambda: model._estimate(self.params))


def _close(engine: Engine, reservation: Reservation | None, native: object) -> None:
    try:
        engine.close(native)
    finally:
        if reservation is not None:
            reservation.release()
