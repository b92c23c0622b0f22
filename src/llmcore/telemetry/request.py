"""
`RequestTrace`: the times of one answer, and its spans.
"""

from __future__ import annotations

import time
from typing import Any

from attrs import asdict

from llmcore.errors import OperationCancelledError
from llmcore.events import Usage
from llmcore.lifecycle import Node
from llmcore.telemetry import bus
from llmcore.telemetry.values import Name, Statistics


class RequestTrace:
    """
    Lives as long as its answer: a ``request`` with ``queue``, ``prefill`` and
    ``decode`` inside, one after the other.

    `asked` is called on the thread of the caller, the others on that of the engine.

    Args:
        node: Of the sequence.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._times: list[int] = []  # asked, begun, first token, each if it came to it
        self._request = self._phase = bus.UNHEARD

    def asked(self, **attributes: Any) -> None:
        """The engine took it on; ``attributes`` say what was asked for."""
        self._times.append(time.monotonic_ns())
        if bus.ears:
            attributes |= _engine_of(self._node)
            self._request = bus.span("request", self._node, **attributes)
            self._begin("queue")

    def begun(self) -> None:
        """It is its turn: the prompt comes next."""
        self._times.append(time.monotonic_ns())
        self._phase.complete()
        self._begin("prefill")

    def first_token(self, prompt_tokens: int, reused_tokens: int) -> None:
        """The prompt was evaluated, and a token drawn."""
        self._times.append(time.monotonic_ns())
        self._phase.complete(prompt_tokens=prompt_tokens, reused_tokens=reused_tokens)
        self._begin("decode")

    def _begin(self, name: Name) -> None:
        self._phase = bus.span(name, self._node, parent=self._request)

    def statistics(self, usage: Usage) -> Statistics:
        """The answer is complete."""
        seconds = [(at - self._times[0]) / 1e9 for at in self._times]
        return Statistics(
            prompt_tokens=usage.prompt_tokens,
            reused_tokens=usage.cached_tokens,
            generated_tokens=usage.completion_tokens,
            queue_time=seconds[1] if len(seconds) > 1 else None,
            time_to_first_token=seconds[2] if len(seconds) > 2 else None,
            duration=(time.monotonic_ns() - self._times[0]) / 1e9,
        )

    def end(self, finish_reason: str, statistics: Statistics) -> None:
        """All of the answer is there."""
        self._phase.complete(generated_tokens=statistics.generated_tokens)
        facts = asdict(statistics)
        del facts["duration"]  # the event has it
        self._request.complete(finish_reason=finish_reason, **facts)

    def fail(self, error: BaseException | None, generated_tokens: int) -> None:
        """There will be no more of it; without an error nobody wanted more."""
        if error is None:
            error = OperationCancelledError(f"nobody reads on {self._node.label}")
        self._phase.fail(error, generated_tokens=generated_tokens)
        self._request.fail(error, generated_tokens=generated_tokens)


def _engine_of(node: Node) -> dict[str, str]:
    """Names of the model and of the backend that a sequence is on."""
    names: dict[str, str] = {}
    above: Node | None = node
    while above is not None:
        names[above.kind] = above.name
        above = above.parent
    return {"model": names.get("model", ""), "backend": names.get("llama", "")}
