"""
Going down the ladder until a plan fits, or until the engine takes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from attrs import asdict, evolve, frozen

from llmcore.errors import (
    CapabilityError,
    ContextCreationError,
    InsufficientMemoryError,
    ParameterError,
)
from llmcore.memory.budget import EVERYTHING
from llmcore.memory.footprint import Footprint, size_text
from llmcore.memory.ladder import LADDER, Plan, Room, Step, lacking
from llmcore.memory.shortage import Shortage

logger = logging.getLogger("llmcore.memory")
# Without a handler of our own, `logging` prints warnings to stderr as a last resort.
logger.addHandler(logging.NullHandler())

T = TypeVar("T")


@frozen(kw_only=True)
class StepTaken:
    """
    One step down the ladder.

    Attributes:
        name: Of the step.

        sentence: What changed and what it gained, for people.

        gained: Bytes, where memory was short; 0 if nobody could say, or if the engine
            refused it.
    """

    name: str
    sentence: str
    gained: int


@frozen(kw_only=True)
class Fitted:
    """
    A plan that fits.

    Attributes:
        plan: It.

        footprint: What it needs by the estimate.

        steps: What it took.
    """

    plan: Plan
    footprint: Footprint
    steps: tuple[StepTaken, ...] = ()


def ladder_of(fit: Sequence[Step] | bool) -> tuple[Step, ...]:
    """The steps that ``fit=`` of a caller means: False is none, True the usual ones."""
    if fit is True:
        return LADDER
    return tuple(fit) if fit else ()


def fit(plan: Plan, room: Room, ladder: Iterable[Step] = LADDER) -> Fitted:
    """
    Make a plan smaller until it fits by its estimate.

    Args:
        plan: What is wanted; what is pinned in it stays.

        room: What there is.

        ladder: The steps, in the order in which they are taken.

    Raises:
        InsufficientMemoryError: Nothing is left to give; its ``account`` has each step
            with the bytes that it gained.
    """
    return retrying(plan, lambda made: None, room, ladder)[1]


def retrying(
    plan: Plan,
    attempt: Callable[[Plan], T],
    room: Room,
    ladder: Iterable[Step] = LADDER,
    *,
    what: str = "it",
) -> tuple[T, Fitted]:
    """
    Make a plan smaller until it fits and the engine agrees.

    Args:
        plan: What is wanted; what is pinned in it stays.

        attempt: Does it. `InsufficientMemoryError` leads one step down; another
            refusal of a plan that a step made leads past that step.

        room: What there is.

        ladder: The steps, in the order in which they are taken; none means to try once.

        what: Whom it is for, in words.

    Returns:
        What ``attempt`` returned, and the plan that it was.

    Raises:
        InsufficientMemoryError: Nothing is left to give; its ``account`` has each step
            with the bytes that it gained.
    """
    descent = _Descent(plan, room, ladder)
    reason: Shortage | InsufficientMemoryError | None = None
    while True:
        found: Shortage | InsufficientMemoryError | None = room.short(descent.plan)
        if found is None:
            try:
                return attempt(descent.plan), descent.fitted()
            except InsufficientMemoryError as error:
                found = error
            except (ContextCreationError, CapabilityError, ParameterError) as error:
                if not descent.steps:
                    raise
                descent.refuse(error)
        reason = found or reason  # a refusal leads back to what did not fit before
        if not descent.down():
            raise descent.failure(what, reason)


class _Descent:
    """The way down from one plan; lives for one call."""

    def __init__(self, plan: Plan, room: Room, ladder: Iterable[Step]) -> None:
        self.plan = plan
        self.steps: list[StepTaken] = []
        self._before = plan
        self._refused = refused = list[Plan]()
        self._room = evolve(
            room, allows=lambda made: made not in refused and room.allows(made)
        )
        self._ways: Iterator[Step] = iter(ladder)
        self._way = next(self._ways, None)

    def fitted(self) -> Fitted:
        return Fitted(
            plan=self.plan,
            footprint=self._room.needs(self.plan),
            steps=tuple(self.steps),
        )

    def down(self) -> bool:
        """Take the next step that gains something; False if there is none."""
        while self._way is not None:
            made = self._way.apply(self.plan, self._room)
            taken = None if made is None else self._judged(self._way, made)
            if made is not None and taken is not None:
                self._before, self.plan = self.plan, made
                self.steps.append(taken)
                logger.warning("memory is short: %s", taken.sentence)
                return True
            self._way = next(self._ways, None)
        return False

    def _judged(self, way: Step, made: Plan) -> StepTaken | None:
        """The step to a plan; None if it must not be, or gains nothing."""
        changes = _changes(self.plan, made)
        if self.plan.pinned & changes.keys() or not self._room.allows(made):
            return None
        evicted = made.evicted - self.plan.evicted
        gained = evicted + self._gain(made)
        unknown = self._room.estimate is None and bool(changes)
        if gained <= 0 and not unknown:
            return None
        told = ", ".join(
            f"{name} {old} to {new}" for name, (old, new) in changes.items()
        )
        what = f"{way.name} ({told})" if told else way.name
        gain = size_text(gained) if gained else "an unknown number of bytes"
        return StepTaken(
            name=way.name, sentence=f"{what} gained {gain}", gained=max(0, gained)
        )

    def _gain(self, made: Plan) -> int:
        """Bytes fewer where memory is short, or anywhere if nobody knows where."""
        before, after = self._room.needs(self.plan), self._room.needs(made)
        short = self._room.shortage(before)
        if short is None:
            sizes = before.devices.items()
            return sum(max(0, size - after.on(device)) for device, size in sizes)
        devices = lacking(short)
        if EVERYTHING in devices or not devices:
            return before.total - after.total
        return sum(before.on(device) - after.on(device) for device in devices)

    def refuse(self, error: Exception) -> None:
        """Go back: the engine does not take what the last step made."""
        last = self.steps.pop()
        sentence = f"{last.sentence}, but the engine refused it: {error}"
        self.steps.append(evolve(last, sentence=sentence, gained=0))
        logger.warning("memory is short: %s", sentence)
        self._refused.append(self.plan)
        self.plan = self._before

    def failure(
        self, what: str, reason: Shortage | InsufficientMemoryError | None
    ) -> InsufficientMemoryError:
        """What to raise at the end of the ladder."""
        engine = reason if isinstance(reason, InsufficientMemoryError) else None
        if engine is not None and not self.steps:
            return engine
        known = reason if engine is None else engine.account
        if not isinstance(known, Shortage):
            known = Shortage(what=what, footprint=self._room.needs(self.plan))
        account = evolve(known, steps=tuple(taken.sentence for taken in self.steps))
        message = _sentence(account) if engine is None else str(engine)
        if self.steps:
            gained = size_text(sum(taken.gained for taken in self.steps))
            count = len(self.steps)
            steps = "one step" if count == 1 else f"{count} steps"
            message += f"; {steps} down the ladder gained {gained}"
        error = InsufficientMemoryError(message, account)
        error.__cause__ = engine
        return error


def _sentence(short: Shortage) -> str:
    lacks = ", ".join(
        f"{size_text(size)} on {name}" for name, size in lacking(short).items()
    )
    headroom = f" and {short.headroom:.0%} headroom" if short.headroom else ""
    return (
        f"{short.what} needs {size_text(short.footprint.total)}{headroom} but lacks "
        f"{lacks or 'that'}: unload something, pin less, or choose a smaller model"
    )


def _changes(before: Plan, after: Plan) -> Mapping[str, tuple[Any, Any]]:
    """Old and new value of each field that differs, by its name."""
    old, new = ({**_plain(p.model), **_plain(p.context)} for p in (before, after))
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def _plain(params: Any) -> dict[str, Any]:
    return asdict(params, recurse=False)
