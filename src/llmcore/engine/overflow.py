"""
What happens when a sequence is full: nothing, unless the caller said what.
"""

from __future__ import annotations

from typing import Any

from llmcore.engine.cache import Cache
from llmcore.engine.callers import CallersError, call
from llmcore.engine.slot import Slot
from llmcore.errors import CapabilityError
from llmcore.params import Shift
from llmcore.spi import BackendContext


def room_made(
    policy: Any, native: BackendContext, cache: Cache, slot: Slot
) -> Shift | None:
    """
    Drop old tokens as a policy says, and move up what follows.

    Returns:
        What was done, with numbers; None if the policy makes no room.

    Raises:
        ValueError: The policy asks for what cannot be.

        CapabilityError: The cache refused.
    """
    if policy == "error":
        return None
    shift = policy if isinstance(policy, Shift) else call(policy, list(slot.tokens))
    if shift is None:
        return None
    if not isinstance(shift, Shift):
        raise CallersError(
            TypeError(f"an overflow policy must return a Shift, got {shift!r}")
        )
    held, keep = len(slot.tokens), shift.keep
    drop = shift.drop or max(1, (held - keep) // 2)
    if keep + drop > held - 1:
        raise CallersError(
            ValueError(
                f"cannot keep {keep} and drop {drop} of {held} tokens: at least one "
                "must stay after them; keep or drop fewer, or make a larger context"
            )
        )
    if not cache.drop(native, slot, keep, drop):
        raise CapabilityError(
            "the cache cannot drop tokens from its middle: use overflow='error'"
        )
    return Shift(keep=keep, drop=drop)
