"""
What the leak detective reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from attrs import frozen

Kind = Literal["held", "forgotten", "in use", "handle", "memory"]
"""
``"held"``: never disposed, and somebody still refers to it. ``"forgotten"``: never
disposed, and nobody does. ``"in use"``: disposed, but a thread is still inside.
``"handle"``: freed, but its engine still has something open. ``"memory"``: more bytes
are used than before.
"""


@frozen(kw_only=True)
class Leak:
    """
    One thing that was not given back.

    Attributes:
        kind: What is wrong with it.

        what: The object, such as ``"model#2 'tiny'"``, or the memory.

        created_at: File and line, if it was made by a call.

        text: All about it, several lines.
    """

    kind: Kind
    what: str
    text: str
    created_at: tuple[str, int] | None = None


class LeakError(AssertionError):
    """
    Something was not given back; names each object, where it was made, what to do.

    Attributes:
        leaks: What was found.
    """

    def __init__(self, leaks: Sequence[Leak]) -> None:
        count = "1 leak" if len(leaks) == 1 else f"{len(leaks)} leaks"
        super().__init__("\n".join([f"{count} found", *(leak.text for leak in leaks)]))
        self.leaks = tuple(leaks)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.leaks,)
