"""
`Budget`: how many bytes may be reserved, and who has reserved them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from llmcore.errors import InsufficientMemoryError, ParameterError
from llmcore.memory.footprint import Footprint, size_text
from llmcore.memory.machine import available_ram
from llmcore.memory.shortage import Pool, Shortage
from llmcore.values import Device

Amount = int | Literal["auto"] | None
"""Bytes; ``"auto"`` for what is free when it is first asked for; None for no limit."""

Limit = Amount | Mapping[str, Amount]
"""One amount for all devices together, or one for each device by its name."""

RAM = "cpu"
"""The device that stands for the RAM of the machine."""

EVERYTHING = "all devices"


class Budget:
    """
    Lives as long as anyone reserves from it. Any thread.

    It counts what was promised, so that two loads at once cannot both take the last
    free bytes; it does not watch the memory itself.

    Args:
        limit: Bytes for everything together, or for each device by name: ``"cpu"`` or
            ``"ram"`` for the RAM, ``"vram"`` for each GPU, or the name of one, as
            `Llama.devices` tells it; a device that is not named is ``"auto"``.
            ``"auto"`` is what is free of a device's memory when it is first asked for.
            None is no limit.

        headroom: Share that is reserved on top of each estimate, 0 or more.

    Raises:
        ParameterError: The limit makes no sense; says why.
    """

    def __init__(self, limit: Limit = "auto", *, headroom: float = 0.2) -> None:
        if not 0 <= headroom < 100:
            raise ParameterError(f"headroom must be 0 or more, got {headroom!r}")
        self._asked = _checked(limit)
        self.headroom = headroom
        self._lock = threading.Lock()
        self._limits: dict[str, int | None] = {}
        self._holders: list[Reservation] = []

    @classmethod
    def of(cls, limit: Budget | Share | Limit) -> Budget | Share | None:
        """A budget of this limit, or this budget; None if there is no limit."""
        if limit is None or isinstance(limit, Budget | Share):
            return limit
        return cls(limit)

    # -- what there is -----------------------------------------------------------------

    def learn(self, devices: Iterable[Device]) -> None:
        """Take the free memory of devices for ``"auto"``, the first time they come."""
        with self._lock:
            for device in devices:
                if device.kind != "cpu" and device.name not in self._limits:
                    free = device.free if device.total else None  # some tell nothing
                    self._settle_limit(device.name, free)

    def _settle_limit(self, device: str, free: int | None) -> int | None:
        """What ``"auto"`` comes to for a device; None is no limit."""
        amount = self._amount(device)
        limit = free if amount == "auto" else amount
        self._limits[device] = limit
        return limit

    def _amount(self, device: str) -> Amount:
        if not isinstance(self._asked, Mapping):
            return self._asked
        general = "ram" if device == RAM else "vram"
        return self._asked.get(device, self._asked.get(general, "auto"))

    def _limit(self, device: str) -> int | None:
        if device in self._limits:
            return self._limits[device]
        return self._settle_limit(device, available_ram() if device == RAM else None)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The budget as it is now: one pool for all devices, or one for each."""
        with self._lock:
            return self._pools()

    def _pools(self) -> tuple[Pool, ...]:
        reserved = self._reserved()
        if isinstance(self._asked, int):
            total = sum(reserved.values())
            return (Pool(name=EVERYTHING, limit=self._asked, reserved=total),)
        return tuple(
            Pool(
                name=device, limit=self._limit(device), reserved=reserved.get(device, 0)
            )
            for device in sorted({RAM, *reserved, *self._limits})
        )

    def _reserved(self, holders: Iterable[Reservation] | None = None) -> dict[str, int]:
        sums: dict[str, int] = {}
        for holder in self._holders if holders is None else holders:
            for device, size in holder._amounts.items():
                sums[device] = sums.get(device, 0) + size
        return sums

    @property
    def reserved(self) -> Mapping[str, int]:
        """Bytes reserved on each device, headroom included."""
        with self._lock:
            return self._reserved()

    @property
    def holders(self) -> Mapping[str, int]:
        """Who has reserved how many bytes, by name."""
        with self._lock:
            return self._holders_now()

    def _holders_now(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for holder in self._holders:
            name = holder.what if holder.by is None else holder.by.name
            sums[name] = sums.get(name, 0) + sum(holder._amounts.values())
        return sums

    def would_fit(
        self, footprint: Footprint, *, without: Collection[Share] = ()
    ) -> bool:
        """Whether it would fit if these shares gave back all that they hold."""
        with self._lock:
            reserved = self._reserved([h for h in self._holders if h.by not in without])
            return not self._missing(self._amounts(footprint), reserved)

    def share(self, name: str) -> Share:
        """A name under which reservations are counted together."""
        return Share(self, name)

    def shortage(
        self, footprint: Footprint, what: str, *, within: Reservation | None = None
    ) -> Shortage | None:
        """Why `reserve` would fail now; None if it would not."""
        with self._lock:
            amounts, others = self._amounts(footprint), self._reserved()
            for device, size in ({} if within is None else within._amounts).items():
                others[device] -= min(size, amounts.get(device, 0))
            if not self._missing(amounts, others):
                return None
            return self._account(footprint, what)

    # -- reserving ---------------------------------------------------------------------

    def reserve(
        self,
        footprint: Footprint,
        what: str,
        *,
        within: Reservation | None = None,
        by: Share | None = None,
    ) -> Reservation:
        """
        Promise bytes, and the headroom on top of them.

        Args:
            footprint: Where and how many.

            what: For what, in words.

            within: An own reservation to take them from, as far as it has them.

            by: The share that they count for.

        Raises:
            InsufficientMemoryError: They are not free; nothing was reserved. Its
                ``account`` is the whole story.
        """
        with self._lock:
            made = Reservation(self, what, footprint, within, by)
            made._amounts = self._taken(made, self._amounts(footprint))
            self._holders.append(made)
            return made

    def _settle(self, held: Reservation, footprint: Footprint) -> None:
        """See `Reservation.settle`."""
        with self._lock:
            was = held.footprint
            held.footprint = footprint
            try:
                held._amounts = self._taken(held, self._amounts(footprint))
            except InsufficientMemoryError:  # then at least the bytes themselves
                try:
                    least = {
                        device: max(size, held._on(device))
                        for device, size in footprint.devices.items()
                    }
                    held._amounts = self._taken(held, least)
                except InsufficientMemoryError:
                    held.footprint = was
                    raise

    def _taken(self, held: Reservation, amounts: dict[str, int]) -> dict[str, int]:
        """
        Take bytes for a reservation instead of those that it has: from the one that it
        lies within as far as that has them, and else from what is free.
        """
        others = self._reserved([h for h in self._holders if h is not held])
        within = held.within._amounts if held.within is not None else {}
        share = {
            device: min(size, max(0, amounts.get(device, 0) - held._on(device)))
            for device, size in within.items()
        }
        for device, size in share.items():
            others[device] -= size
        if self._missing(amounts, others):
            raise self._refusal(held.footprint, held.what)
        for device, size in share.items():
            within[device] -= size
        return amounts

    def _release(self, held: Reservation) -> None:
        with self._lock:
            if held in self._holders:
                self._holders.remove(held)

    def _amounts(self, footprint: Footprint) -> dict[str, int]:
        return {
            device: round(size * (1 + self.headroom))
            for device, size in footprint.devices.items()
        }

    def _missing(
        self, amounts: Mapping[str, int], reserved: Mapping[str, int]
    ) -> dict[str, int]:
        """Bytes that are not free, by pool; none if all fit."""
        if isinstance(self._asked, int):
            wanted = {EVERYTHING: sum(amounts.values())}
            taken = {EVERYTHING: sum(reserved.values())}
            limits: Mapping[str, int | None] = {EVERYTHING: self._asked}
        else:
            wanted, taken = dict(amounts), dict(reserved)
            limits = {device: self._limit(device) for device in amounts}
        missing: dict[str, int] = {}
        for name, size in wanted.items():
            limit = limits[name]
            if limit is not None and size + taken.get(name, 0) > limit:
                missing[name] = size + taken.get(name, 0) - limit
        return missing

    def _account(self, footprint: Footprint, what: str) -> Shortage:
        return Shortage(
            what=what,
            footprint=footprint,
            headroom=self.headroom,
            pools=self._pools(),
            holders=self._holders_now(),
        )

    def _refusal(self, footprint: Footprint, what: str) -> InsufficientMemoryError:
        account = self._account(footprint, what)
        room = ", ".join(
            f"{size_text(pool.free or 0)} of {size_text(pool.limit)} free on "
            f"{pool.name}"
            for pool in account.pools
            if pool.limit is not None
        )
        return InsufficientMemoryError(
            f"{what} needs {size_text(footprint.total)} and {self.headroom:.0%} "
            f"headroom, but the budget has {room}: unload something, choose a smaller "
            "context, cache type or model, or raise the budget",
            account,
        )

    def __repr__(self) -> str:
        return f"<llmcore.Budget {self._asked!r} headroom={self.headroom}>"


class Reservation:
    """
    Bytes that a `Budget` promised; lives until `release`. Any thread.

    Attributes:
        what: For what.

        footprint: Where and how many, without the headroom.

        within: The reservation that they were taken from, if any.

        by: The share that they count for, if any.
    """

    def __init__(
        self,
        budget: Budget,
        what: str,
        footprint: Footprint,
        within: Reservation | None = None,
        by: Share | None = None,
    ) -> None:
        self.budget = budget
        self.within = within
        self.by = by
        self.what = what
        self.footprint = footprint
        self._amounts: dict[str, int] = {}

    @property
    def amounts(self) -> Mapping[str, int]:
        """Bytes held on each device, headroom included; none after `release`."""
        return dict(self._amounts)

    def settle(self, footprint: Footprint) -> None:
        """
        Hold what is really used instead of what was estimated.

        Raises:
            InsufficientMemoryError: That is more, and not free; nothing changed.
        """
        self.budget._settle(self, footprint)

    def release(self) -> None:
        """Give the bytes back; doing it twice is fine."""
        self.budget._release(self)
        self._amounts = {}

    def _on(self, device: str) -> int:
        return self._amounts.get(device, 0)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Share:
    """
    Reservations of a `Budget` that count together, such as those for one model and for
    the contexts on it. Any thread.

    Attributes:
        name: Under which the ledger shows them.
    """

    def __init__(self, budget: Budget, name: str) -> None:
        self.budget = budget
        self.name = name

    def reserve(
        self, footprint: Footprint, what: str, *, within: Reservation | None = None
    ) -> Reservation:
        """See `Budget.reserve`."""
        return self.budget.reserve(footprint, what, within=within, by=self)

    def learn(self, devices: Iterable[Device]) -> None:
        """See `Budget.learn`."""
        self.budget.learn(devices)

    @property
    def reserved(self) -> Mapping[str, int]:
        """Bytes on each device, headroom included."""
        budget = self.budget
        with budget._lock:
            return budget._reserved([h for h in budget._holders if h.by is self])


def _checked(limit: Limit) -> Limit:
    amounts = limit.values() if isinstance(limit, Mapping) else [limit]
    for amount in amounts:
        if amount in ("auto", None) or (type(amount) is int and amount >= 0):
            continue
        raise ParameterError(
            "a limit must be a number of bytes, 'auto', None, or a dict of these by "
            f"device, got {limit!r}"
        )
    if isinstance(limit, Mapping):
        return {RAM if name == "ram" else name: size for name, size in limit.items()}
    return limit
