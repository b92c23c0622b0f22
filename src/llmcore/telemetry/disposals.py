"""
Tells the disposal of each resource, as the lifecycle announces it.
"""

from __future__ import annotations

from llmcore.lifecycle import Node, observe
from llmcore.telemetry import bus

_open: dict[int, bus.Span] = {}


def _watch(step: str, node: Node) -> None:
    if step == "disposing":
        # A disposal that Ctrl-C cut short begins again elsewhere.
        if "dispose" in bus.ears and node.number not in _open:
            _open[node.number] = bus.span("dispose", node)
    elif _open and step != "created":
        span = _open.pop(node.number, bus.UNHEARD)
        if step == "disposed":
            span.complete()
        else:
            error = f"the teardown of {node.label} failed"
            span.end("fail", {"error_type": "DisposeError", "error": error})


observe(_watch)
