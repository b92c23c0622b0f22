"""What capabilities let one do: natively, by an emulation of core, or not."""

from __future__ import annotations

import pytest

from llmcore.errors import CapabilityError
from llmcore.plugins import support
from llmcore.plugins.support import require
from llmcore.values import Capability as C


def test_everything() -> None:
    """With every capability every operation is native."""
    assert set(support(frozenset(C)).values()) == {"native"}


def test_nothing() -> None:
    """Without any, what core can do by evaluating again is left, and no more."""
    found = support(frozenset())
    emulated = {operation for operation, how in found.items() if how == "emulated"}

    assert emulated == {"truncate", "state", "abort", "cancel-load"}
    assert set(found.values()) == {"emulated", "refused"}


@pytest.mark.parametrize(
    ("operation", "missing", "how"),
    [
        ("sampling", {C.NATIVE_SAMPLING}, "emulated"),
        ("sampling", {C.NATIVE_SAMPLING, C.LOGITS}, "refused"),
        ("sampling", {C.LOGITS}, "native"),
        ("logits", {C.LOGITS}, "refused"),
        ("fork", {C.COPY}, "emulated"),
        ("fork", {C.MULTI_SEQUENCE}, "refused"),
        ("truncate", {C.PARTIAL_REMOVE}, "emulated"),
        ("shift", {C.PARTIAL_REMOVE}, "refused"),
        ("shift", {C.SHIFT}, "refused"),
        ("prediction", {C.PARTIAL_REMOVE}, "refused"),
        ("state", {C.STATE_IO}, "emulated"),
        ("embedding", {C.EMBEDDING}, "refused"),
        ("sequences", {C.MULTI_SEQUENCE}, "refused"),
        ("gpu", {C.GPU}, "refused"),
    ],
)
def test_without(operation: str, missing: set[C], how: str) -> None:
    """Each operation without a capability is what the protocol does then."""
    assert support(frozenset(C) - missing)[operation] == how


def test_require() -> None:
    """What lacks capabilities is named with all that it lacks."""
    with pytest.raises(CapabilityError, match=r"model#1.*'shift', 'state-io': use"):
        require("model#1", {C.LOGITS}, [C.STATE_IO, C.LOGITS, C.SHIFT])
    require("model#1", {C.LOGITS}, [C.LOGITS])
