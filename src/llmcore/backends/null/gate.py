"""A gate that holds calls inside the null backend until a test lets them go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from attrs import define, field


@define(eq=False)
class Rule:
    """Which calls of an operation a script treats specially; counts as it matches."""

    op: str
    nth: int = 1
    times: int | None = None
    sequence: int | None = None
    seen: int = field(default=0, init=False)

    def matches(self, op: str, sequences: frozenset[int]) -> bool:
        """Count a call that this rule is about; whether it is one of the chosen."""
        other = self.sequence is not None and self.sequence not in sequences
        if op != self.op or other:
            return False
        self.seen += 1
        last = None if self.times is None else self.nth + self.times
        return self.nth <= self.seen and (last is None or self.seen < last)


class Gate:
    """
    Holds calls of one operation until `open`; made by `NullScript.gate`.

    As a context manager it opens when the block ends, however it ends. Any thread.
    """

    def __init__(
        self, rule: Rule, changed: threading.Condition, timeout: float
    ) -> None:
        self.rule = rule
        self.timeout = timeout
        self._changed = changed
        self._open = False
        self._permits = 0
        self._entered: list[int] = []
        self._left = 0

    def __repr__(self) -> str:
        state = "open" if self._open else "shut"
        return f"<Gate({self.rule.op}, {state}, entered={self.entered})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open()

    @property
    def threads(self) -> list[int]:
        """Identifiers of the threads that came to the gate, in order."""
        return list(self._entered)

    @property
    def entered(self) -> int:
        """Calls that came to the gate."""
        return len(self._entered)

    @property
    def waiting(self) -> int:
        """Calls that are held now."""
        return len(self._entered) - self._left

    def wait_entered(self, timeout: float = 30.0, *, count: int = 1) -> None:
        """
        Wait until a call is, or has been, at the gate.

        Args:
            timeout: Seconds to wait at most.

            count: How many calls must have come.

        Raises:
            TimeoutError: They did not come in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.entered >= count, timeout):
                raise TimeoutError(
                    f"{self.entered} of {count} calls of {self.rule.op!r} came to its "
                    f"gate within {timeout:g} s: check that the code reaches it"
                )

    def step(self, count: int = 1) -> None:
        """Let this many calls pass, held now or coming later."""
        with self._changed:
            self._permits += count
            self._changed.notify_all()

    def open(self) -> None:
        """Let every call pass from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def hold(self, interrupted: Callable[[], bool]) -> None:
        """
        Hold the calling thread; for the null backend.

        Args:
            interrupted: Ends the wait when it turns true.

        Raises:
            TimeoutError: Nobody opened the gate in time.
        """
        with self._changed:
            self._entered.append(threading.get_ident())
            self._changed.notify_all()
            try:
                if not self._changed.wait_for(
                    lambda: self._open or self._permits > 0 or interrupted(),
                    self.timeout,
                ):
                    raise TimeoutError(
                        f"nobody opened the gate of {self.rule.op!r} within "
                        f"{self.timeout:g} s: call open(), or use it in a with block"
                    )
                if not self._open and not interrupted():
                    self._permits -= 1
            finally:
                self._left += 1
