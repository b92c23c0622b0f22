"""
JSON objects as bytes, with nothing that only some readers accept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def encode(value: Mapping[str, Any]) -> bytes:
    """An object as compact JSON in ASCII; refuses what JSON cannot say."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def decode(data: bytes) -> dict[str, Any]:
    """
    The one object that strict JSON in UTF-8 holds.

    Raises:
        ValueError: It is not JSON, not an object, or has NaN, an infinite number, or a
            key twice.

        RecursionError: It is nested too deeply.
    """
    value = json.loads(
        data.decode(),
        object_pairs_hook=_unique,
        parse_constant=_finite,
        parse_float=_finite,
    )
    if not isinstance(value, dict):
        raise ValueError("the JSON is not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
