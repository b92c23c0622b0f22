"""
`Footprint`: bytes by device and purpose, whether estimated, reserved or really used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from attrs import field, frozen

from llmcore.params.validators import integer, one_of

Purpose = Literal["weights", "cache", "compute", "other"]
"""
What bytes are for: ``"weights"`` of a model, the ``"cache"`` of a context (keys and
values, or a recurrent state), its ``"compute"`` buffers with the outputs, or
``"other"``, such as what nobody asked the engine about.
"""
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@frozen(kw_only=True)
class Term:
    """
    Bytes of one purpose on one device.

    Attributes:
        device: The name of a `Device`, ``"cpu"`` for the RAM of the machine.

        purpose: What they are for.

        size: How many, 0 or more.

        why: Where the number comes from, one line for people.
    """

    device: str
    purpose: Purpose = field(validator=one_of(*PURPOSES))
    size: int = field(validator=integer(0, 2**62))
    why: str = field(default="", eq=False)


@frozen
class Footprint:
    """
    Bytes by device and purpose. Adding two of them joins their terms.

    Attributes:
        terms: The parts, in the order in which they were found.
    """

    terms: tuple[Term, ...] = ()

    @property
    def total(self) -> int:
        """All bytes together."""
        return sum(term.size for term in self.terms)

    @property
    def devices(self) -> Mapping[str, int]:
        """Bytes on each device, by its name."""
        return self._sums("device")

    @property
    def purposes(self) -> Mapping[str, int]:
        """Bytes for each purpose, by its name."""
        return self._sums("purpose")

    def of(self, purpose: Purpose) -> int:
        """Bytes for one purpose on all devices."""
        return self.purposes.get(purpose, 0)

    def on(self, device: str) -> int:
        """Bytes on one device."""
        return self.devices.get(device, 0)

    def _sums(self, name: str) -> dict[str, int]:
        sums: dict[str, int] = {}
        for term in self.terms:
            key = getattr(term, name)
            sums[key] = sums.get(key, 0) + term.size
        return sums

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.terms + other.terms)

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "total": self.total,
            "devices": dict(self.devices),
            "purposes": dict(self.purposes),
            "terms": [
                {"device": t.device, "purpose": t.purpose, "size": t.size, "why": t.why}
                for t in self.terms
            ],
        }

    def explain(self) -> str:
        """A line for each term and one for the total, for people."""
        rows: list[tuple[str, str, int, str]] = [
            (t.device, t.purpose, t.size, t.why) for t in self.terms
        ]
        rows.append(("", "total", self.total, ""))
        wide = max(len(device) for device, *_ in rows)
        return "\n".join(
            f"{device:{wide}}  {purpose:8}{size_text(size):>12}  {why}".rstrip()
            for device, purpose, size, why in rows
        )


def size_text(size: int) -> str:
    """
    A number of bytes for people, in binary units (1 GiB is 2**30 bytes).

    >>> size_text(377_487_360)
    '360.0 MiB'
    """
    amount, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"
