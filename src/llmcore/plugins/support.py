"""What a set of capabilities lets one do: natively, by an emulation of core, or not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from llmcore.errors import CapabilityError
from llmcore.values import Capability

Support = Literal["native", "emulated", "refused"]
"""
How an operation is done: by the engine, by core with the same result in another way
(as a rule slower), or with a `CapabilityError`.
"""

C = Capability

# For each operation: what makes it native, and what core needs to emulate it, or None
# if it does not. Each line says in words what the emulation is.
_OPERATIONS: dict[str, tuple[set[Capability], set[Capability] | None]] = {
    "sequences": ({C.MULTI_SEQUENCE}, None),
    "logits": ({C.LOGITS}, None),
    # Core chooses from the logits. With a seed it always does (decision 0010).
    "sampling": ({C.NATIVE_SAMPLING}, {C.LOGITS}),
    # The tokens of the other sequence are evaluated again.
    "fork": ({C.MULTI_SEQUENCE, C.COPY}, {C.MULTI_SEQUENCE}),
    # The sequence goes back to a saved state, or is emptied.
    "truncate": ({C.PARTIAL_REMOVE}, set()),
    "shift": ({C.PARTIAL_REMOVE, C.SHIFT}, None),
    "prediction": ({C.PARTIAL_REMOVE}, None),
    # The tokens are saved, and evaluated again after loading.
    "state": ({C.STATE_IO}, set()),
    "embedding": ({C.EMBEDDING}, None),
    # Work ends at the next step of the engine.
    "abort": ({C.ABORT}, set()),
    # The load goes on to its end, and the model is disposed.
    "cancel-load": ({C.CANCEL_LOAD}, set()),
    "gpu": ({C.GPU}, None),
}


def support(capabilities: Collection[Capability]) -> Mapping[str, Support]:
    """
    How each operation is done, by name.

    Args:
        capabilities: Of a model (`Model.capabilities`), or the most that a backend has.
    """
    return {
        operation: _support(set(capabilities), native, emulation)
        for operation, (native, emulation) in _OPERATIONS.items()
    }


def _support(
    have: set[Capability], native: set[Capability], emulation: set[Capability] | None
) -> Support:
    if native <= have:
        return "native"
    return "refused" if emulation is None or not emulation <= have else "emulated"


def missing(have: Collection[Capability], needed: Iterable[Capability]) -> str:
    """The names of those that are needed and not there; empty if all are."""
    return ", ".join(repr(c.value) for c in sorted(set(needed) - set(have)))


def require(
    label: str, have: Collection[Capability], needed: Iterable[Capability]
) -> None:
    """
    Refuse what lacks a capability.

    Raises:
        CapabilityError: Names what lacks it, and all that it lacks.
    """
    if lacking := missing(have, needed):
        raise CapabilityError(
            f"{label} does not have the capability {lacking}: "
            "use another backend or model"
        )
