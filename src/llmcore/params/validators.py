"""
Validators of the fields: a bad value raises before any native code runs.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute

INT32_MAX = 2**31 - 1


def integer(low: int, high: int = INT32_MAX, *also: object) -> Any:
    """Validator: a whole number in a range, or one of some other values."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value in also and type(value) in {type(a) for a in also}:
            return
        if not isinstance(value, int) or isinstance(value, bool):
            extra = "".join(f" or {a!r}" for a in also)
            raise TypeError(
                f"{attribute.name} must be an integer{extra}, got {value!r}"
            )
        if not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be between {low} and {high}, got {value}"
            )

    return check


def number(low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """Validator: a finite number in a range; ``above`` excludes its lower end."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{attribute.name} must be a number, got {value!r}")
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be finite and between {low:g} and {high:g}, "
                f"got {value}"
            )
        if above and value == low:
            raise ValueError(f"{attribute.name} must be above {low:g}, got {value}")

    return check


def one_of(*allowed: object) -> Any:
    """Validator: the value is one of these, and of the same type."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if not any(
            value is a or (type(value) is type(a) and value == a) for a in allowed
        ):
            choices = ", ".join(repr(a) for a in allowed)
            raise ValueError(
                f"{attribute.name} must be one of {choices}, got {value!r}"
            )

    return check


flag = one_of(True, False)
