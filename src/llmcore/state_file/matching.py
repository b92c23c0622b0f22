"""
Whether a saved state belongs where it is to be loaded.
"""

from __future__ import annotations

from typing import Literal

from llmcore.errors import ContextOverflowError, StateError, StateMismatchError
from llmcore.state_file.values import SavedState, StateHeader

OnMismatch = Literal["error", "evaluate"]
"""Raise, or evaluate the saved tokens again, if a state belongs to another engine."""

_PAYLOAD_FIELDS = ("backend", "build", "cache_kind", "kv_type_k", "kv_type_v")


def differences(saved: StateHeader, here: StateHeader) -> list[str]:
    """
    The fields that keep a payload from being loaded here, the most telling one first.

    ``"model"`` is compared if both sides know it, else ``"vocab_size"``.
    """
    identity = "model" if saved.model and here.model else "vocab_size"
    return [
        name
        for name in (identity, *_PAYLOAD_FIELDS)
        if getattr(saved, name) != getattr(here, name)
    ]


def check(saved: SavedState, here: StateHeader, *, needs_payload: bool) -> None:
    """
    Refuse a state that does not belong here.

    Args:
        saved: What was read.

        here: The header that a state saved here would get.

        needs_payload: The payload will be handed to the engine. If not, the tokens
            will be evaluated again, and only the model and the room matter.

    Raises:
        StateMismatchError: Names the first field that differs.

        ContextOverflowError: There are more tokens than fit here.

        StateError: A payload is needed and the state has none.
    """
    if needs_payload and not saved.payload:
        raise StateError(
            "cannot load state: it holds only its tokens, let them be evaluated again"
        )
    for name in differences(saved.header, here):
        if needs_payload or name not in _PAYLOAD_FIELDS:
            raise _mismatch(name, saved.header, here)
    if len(saved.tokens) > here.context_size:
        raise ContextOverflowError(
            len(saved.tokens), here.context_size, "the saved state"
        )


def _mismatch(name: str, saved: StateHeader, here: StateHeader) -> StateMismatchError:
    return StateMismatchError(name, getattr(saved, name), getattr(here, name))
