"""
Which clauses core keeps by itself, for engines that cannot.
"""

from __future__ import annotations

from collections.abc import Mapping

KEPT_BY: dict[str, tuple[str, ...]] = {
    "sampling": ("gen.greedy-repeatable", "gen.hand-greedy"),
    "fork": ("seq.fork", "seq.fork-state", "cap.emulated"),
    "truncate": ("seq.truncate", "seq.prefix-equal", "cap.emulated"),
    "state": ("state.load-equal", "state.tokens-only", "chat.save"),
}
"""For an operation that core can emulate, the clauses that it is needed for."""


def kept_by_emulation(operations: Mapping[str, str]) -> set[str]:
    """
    The clauses that hold because core does the work.

    Args:
        operations: What `llmcore.plugins.support` says of a model.
    """
    return {
        clause
        for operation, clauses in KEPT_BY.items()
        if operations.get(operation) == "emulated"
        for clause in clauses
    }
