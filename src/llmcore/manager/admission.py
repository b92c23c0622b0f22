"""
`Admission`: makes room in the budget for a model that is to be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal, get_args

from llmcore.engine.signals import MOMENT, Signal
from llmcore.errors import InsufficientMemoryError, OperationCancelledError
from llmcore.manager.entry import Entry
from llmcore.memory import Budget, Footprint, Reservation, Shortage

Policy = Literal["refuse", "evict", "fit"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


class Admission:
    """
    Lives as long as its manager. Any thread.

    Args:
        budget: From which is reserved.

        policy: ``"refuse"`` never evicts; the others evict what was not used for the
            longest time, counted from the end of its last lease.

        entries: The models that there are.

        evict: Unloads one if it is not in use, and says whether it did; returns when
            its memory is free.
    """

    def __init__(
        self,
        budget: Budget,
        policy: Policy,
        entries: Callable[[], Iterable[Entry]],
        evict: Callable[[Entry], bool],
    ) -> None:
        self._budget = budget
        self.policy = policy
        self._entries = entries
        self._evict = evict
        self._waiting = list[Signal]()

    def changed(self) -> None:
        """
        A lease ended, or something was unloaded: those who wait look again. Any thread,
        also in the collector.
        """
        for signal in list(self._waiting):
            signal.set()

    def wait(self, timeout: float) -> None:
        """Wait until something changed, or the time is over."""
        signal = Signal()
        self._waiting.append(signal)
        try:
            signal.wait(timeout)
        finally:
            self._waiting.remove(signal)

    def reserve(
        self, footprint: Footprint, entry: Entry, deadline: float
    ) -> Reservation:
        """
        Reserve for a model, evicting others if the policy lets it.

        Nothing is evicted if that would not be enough: a model which is larger than all
        that could be evicted fails at once, and one that needs the place of models in
        use waits for them, until the deadline.

        Args:
            footprint: What it needs, all together.

            entry: The model; it stops waiting when its load is cancelled.

            deadline: By the monotonic clock.

        Raises:
            InsufficientMemoryError: Its ``account`` is the whole story.

            OperationCancelledError: The load was cancelled.
        """
        while True:
            try:
                return entry.share.reserve(footprint, entry.label)
            except InsufficientMemoryError as error:
                if entry.cancelled:
                    raise OperationCancelledError(
                        f"the load of {entry.label} was cancelled"
                    ) from None
                if self.policy == "refuse" or time.monotonic() >= deadline:
                    raise
                victims = self._victims(error.account, entry)
                if victims is None:
                    raise
            for victim in victims:
                self._evict(victim)
            if not victims:
                self.wait(min(MOMENT, max(0.0, deadline - time.monotonic())))

    def evict_idle(self, wanted: int) -> int:
        """Evict the longest unused until so many bytes are free; says how many are."""
        freed = 0
        idle = [e for e in self._entries() if not e.options.pin and not e.in_use]
        for entry in sorted(idle, key=lambda one: one.idle_since):
            size = sum(entry.share.reserved.values())
            if freed < wanted and self._evict(entry):
                freed += size
        return freed

    def _victims(self, shortage: Shortage, entry: Entry) -> list[Entry] | None:
        """
        Whom to evict: the fewest that are enough, the longest unused first.

        Returns:
            None if all together would not be enough; nobody if it would be enough but
            some of them are in use, so that waiting may help.
        """
        others = [
            other
            for other in self._entries()
            if other is not entry
            and other.status in ("ready", "loading", "unloading")
            and not other.options.pin
        ]
        if not self._enough(shortage, others):
            return None
        idle = [o for o in others if o.status == "ready" and not o.in_use]
        if not self._enough(shortage, idle):
            return []
        return self._fewest(shortage, idle)

    def _fewest(self, shortage: Shortage, idle: list[Entry]) -> list[Entry]:
        """Spare whom it can, the one used last before all others."""
        victims = idle
        for spared in sorted(idle, key=lambda other: other.idle_since, reverse=True):
            rest = [other for other in victims if other is not spared]
            if self._enough(shortage, rest):
                victims = rest
        return victims

    def _enough(self, shortage: Shortage, victims: Iterable[Entry]) -> bool:
        """Whether it would fit without these."""
        shares = [victim.share for victim in victims]
        return self._budget.would_fit(shortage.footprint, without=shares)
