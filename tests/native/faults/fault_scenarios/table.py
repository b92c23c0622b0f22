"""
The table of scenarios, and the decorator that fills it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NamedTuple

ONLY = r"Traceback \(most recent call last\):\n(?:  .*\n)+"
"""Stderr that begins with one traceback and has nothing before it."""

INTERRUPTED = (-signal.SIGINT, 130, 1)
"""How a program ends that lets Ctrl-C through."""


class Scenario(NamedTuple):
    """
    One fault and what must come of it.

    Attributes:
        name: ``theme.function``.

        run: Does it, and prints the outcome.

        outcome: A regular expression to be found in what it prints.

        real_model: Whether it runs with SmolLM2 instead of a tiny random model.

        exit_codes: The process ends with one of these.

        stderr: A regular expression for all of stderr.
    """

    name: str
    run: Callable[[], object]
    outcome: str
    real_model: bool
    exit_codes: tuple[int, ...]
    stderr: str


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    outcome: str,
    *,
    real_model: bool = False,
    exit_codes: tuple[int, ...] = (0,),
    stderr: str = "",
) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Put a function into the table; arguments as for `Scenario`."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        SCENARIOS[name] = Scenario(name, run, outcome, real_model, exit_codes, stderr)
        return run

    return add
