"""
Faults on purpose: run one with ``python -m fault_scenarios NAME MODEL``.

Each module holds the scenarios of one theme. A scenario prints what came of it and
raises AssertionError if that is wrong.
"""

from __future__ import annotations

import importlib

from fault_scenarios.table import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario"]

THEMES = (
    "disposal",
    "sharing",
    "exits",
    "forks",
    "collector",
    "files",
    "loads",
    "text",
)

for theme in THEMES:
    importlib.import_module(f"fault_scenarios.{theme}")
