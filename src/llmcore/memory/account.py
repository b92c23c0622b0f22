"""
`Account`: what one object was expected to use, may use, and uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from attrs import evolve, field, frozen

from llmcore.memory.budget import RAM, Reservation
from llmcore.memory.footprint import Footprint, Purpose, Term, size_text
from llmcore.model_file import check_model_file
from llmcore.values import Device, ModelParams


@frozen(kw_only=True)
class Account:
    """
    The three figures of one live object, in bytes.

    Attributes:
        label: Of the object.

        estimated: What was expected before it was made; None if nobody could say.

        reserved: What the budget holds for it on each device, headroom included; empty
            without a budget.

        actual: What the engine says that it uses.
    """

    label: str
    estimated: Footprint | None
    reserved: Mapping[str, int] = field(factory=dict)
    actual: Footprint

    @property
    def error(self) -> float | None:
        """By how much the estimate was too high, as a share of what is used."""
        if self.estimated is None or not self.actual.total:
            return None
        return self.estimated.total / self.actual.total - 1

    def explain(self) -> str:
        """All of it, for people."""
        reserved = ", ".join(
            f"{size_text(size)} on {device}" for device, size in self.reserved.items()
        )
        lines = [self.label]
        if self.estimated is not None:
            lines += ["estimated:", self.estimated.explain()]
        if self.error is not None:
            lines[1] = f"estimated ({self.error:+.1%}):"
        lines += [
            f"reserved: {reserved or 'nothing'}",
            "actual:",
            self.actual.explain(),
        ]
        return "\n".join(lines)


def spread(
    sizes: Mapping[Purpose, int],
    devices: Sequence[Device],
    expected: Callable[[], Footprint],
) -> Footprint:
    """
    What an engine says that something uses in all, on each device.

    An engine tells the sums; where there is more than one device, they are shared out
    as the estimate has it.

    Args:
        sizes: Bytes for each purpose.

        devices: Those that it may be on.

        expected: Makes the estimate, if it is needed.
    """
    if all(device.kind == "cpu" for device in devices):
        return Footprint(
            tuple(
                Term(device=RAM, purpose=purpose, size=size, why="the engine's report")
                for purpose, size in sizes.items()
            )
        )
    parts = Footprint(tuple(term for term in expected() if term.purpose in sizes))
    return Footprint(tuple(_scaled(parts, sizes)))


def _scaled(parts: Footprint, sizes: Mapping[Purpose, int]) -> Iterator[Term]:
    for purpose, size in sizes.items():
        terms = [term for term in parts if term.purpose == purpose]
        whole, left = sum(term.size for term in terms), size
        for term in terms[1:]:
            share = size * term.size // whole if whole else 0
            left -= share
            yield evolve(term, size=share, why="a share of the engine's report")
        device = terms[0].device if terms else RAM
        why = "the rest of the engine's report"
        yield Term(device=device, purpose=purpose, size=left, why=why)


def expected_weights(
    file: Path,
    formats: tuple[str, ...],
    params: ModelParams,
    devices: Callable[[], Sequence[Device]],
) -> Footprint:
    """What the weights in a file will use; the size of the file if it is no GGUF."""
    from llmcore.memory.estimate import estimate_weights, shape_of

    header = check_model_file(file, formats)
    if header is None:
        return weights_of(file.stat().st_size)
    return estimate_weights(shape_of(header), params, devices=devices())


def weights_of(size: int) -> Footprint:
    """The estimate for a file of which only its size is known."""
    why = "the size of the file, whose header does not tell"
    return Footprint((Term(device=RAM, purpose="weights", size=size, why=why),))


class Accountable(Protocol):
    """What can say what it uses, and can be disposed."""

    def footprint(self) -> Footprint:
        """Bytes that it uses now."""

    def dispose(self) -> None:
        """Give them back."""


A = TypeVar("A", bound=Accountable)


def settled(resource: A, reservation: Reservation | None) -> A:
    """
    Reserve for a new resource what it really uses, and return it.

    Raises:
        InsufficientMemoryError: It uses more than was estimated, and the budget has not
            so much; it is disposed.
    """
    if reservation is not None:
        try:
            reservation.settle(resource.footprint())
        except BaseException:
            resource.dispose()
            raise
    return resource


@contextmanager
def releasing(reservation: Reservation | None) -> Iterator[None]:
    """A block which, if it fails, gives a reservation back."""
    try:
        yield
    except BaseException:
        if reservation is not None:
            reservation.release()
        raise
