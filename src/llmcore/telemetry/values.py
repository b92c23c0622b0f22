"""
The values of telemetry: events, what they are about, and the statistics of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from attrs import field, frozen

from llmcore.lifecycle import Node

Name = Literal[
    "download",
    "load",
    "request",
    "queue",
    "prefill",
    "decode",
    "step",
    "evict",
    "dispose",
]
"""The kinds of work."""

NAMES: frozenset[str] = frozenset(get_args(Name))
"""What `llmcore.telemetry.listen` can be asked for."""

Phase = Literal["start", "complete", "fail"]


@frozen(kw_only=True)
class Subject:
    """
    What an event is about.

    Attributes:
        kind: Such as ``"model"`` or ``"sequence"``.

        label: Its name for people.

        number: Of the resource, never used twice in one process; None if it is none.

        parent: The number of what it depends on, or None.
    """

    kind: str
    label: str
    number: int | None = None
    parent: int | None = None

    @classmethod
    def of(cls, node: Node) -> Self:
        """That of a resource."""
        return cls(
            kind=node.kind,
            label=node.label,
            number=node.number,
            parent=None if node.parent is None else node.parent.number,
        )


@frozen(kw_only=True)
class TelemetryEvent:
    """
    The start or the end of a piece of work.

    Attributes:
        name: What is done; see `NAMES`.

        phase: ``"start"``, and then once ``"complete"`` or ``"fail"``.

        subject: The resource that it is done with.

        span: Number of the piece of work, the same in all its events, never used twice
            in one process.

        parent: The span that it is a part of, or None.

        time: Nanoseconds, by `time.monotonic_ns`.

        duration: Seconds since the start; None at the start.

        attributes: Facts, not to be changed; those of the start come with the end
            again. After a failure ``error_type`` and ``error`` are among them.
    """

    name: Name
    phase: Phase
    subject: Subject
    span: int
    parent: int | None
    time: int
    duration: float | None = None
    attributes: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Statistics:
    """
    What one answer cost: tokens, and seconds since it was asked for.

    ``0 <= queue_time <= time_to_first_token <= duration``. A reader that pauses, and
    others that share the engine, make times longer.

    Attributes:
        prompt_tokens: Length of the prompt.

        reused_tokens: Of them, those that were in the cache.

        generated_tokens: Drawn tokens.

        queue_time: Until its prompt was begun; None if it was stopped before.

        time_to_first_token: Until the first token was drawn; None if none was.

        duration: Until its last token.
    """

    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    queue_time: float | None
    time_to_first_token: float | None
    duration: float

    @property
    def prefill_rate(self) -> float | None:
        """Evaluated tokens of the prompt for each second; None if there were none."""
        if self.queue_time is None or self.time_to_first_token is None:
            return None
        evaluated = self.prompt_tokens - self.reused_tokens
        return _rate(evaluated, self.time_to_first_token - self.queue_time)

    @property
    def generation_rate(self) -> float | None:
        """Tokens after the first for each second; None if there were none."""
        if self.time_to_first_token is None:
            return None
        seconds = self.duration - self.time_to_first_token
        return _rate(self.generated_tokens - 1, seconds)


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if count > 0 and seconds > 0 else None
