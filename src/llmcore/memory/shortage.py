"""
`Shortage`: the account of what did not fit into the budget.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from llmcore.memory.footprint import Footprint, size_text


@frozen(kw_only=True)
class Pool:
    """
    A part of the budget as it is now, in bytes.

    Attributes:
        name: Of the device, or ``"all devices"``.

        limit: The most that can be reserved; None for no limit.

        reserved: What is.
    """

    name: str
    limit: int | None
    reserved: int

    @property
    def free(self) -> int | None:
        """What can still be reserved; None for no limit."""
        return None if self.limit is None else max(0, self.limit - self.reserved)


@frozen(kw_only=True)
class Shortage:
    """
    The account of what did not fit; `InsufficientMemoryError.account`.

    Attributes:
        what: Was to be reserved.

        footprint: Its bytes.

        headroom: The share that is reserved on top of them.

        pools: The budget at that moment.

        holders: Who had reserved how much, by name.

        steps: What was tried to make it fit, as sentences.
    """

    what: str
    footprint: Footprint
    headroom: float = 0.0
    pools: tuple[Pool, ...] = ()
    holders: Mapping[str, int] = field(factory=dict)
    steps: tuple[str, ...] = ()

    def explain(self) -> str:
        """All of it, for people."""
        lines = [f"needed for {self.what}:", self.footprint.explain()]
        lines += [
            f"{pool.name}: {size_text(pool.reserved)} of {size_text(pool.limit)} taken"
            for pool in self.pools
            if pool.limit is not None
        ]
        lines += [f"{name}: {size_text(size)}" for name, size in self.holders.items()]
        return "\n".join([*lines, *self.steps])
