"""
How an engine is kept in a process of its own: the choices there are.
"""

from __future__ import annotations

from typing import Literal

Isolation = Literal["process"]
"""Where an engine runs, if not in this process."""

Restart = Literal["never", "replay"]
"""What follows when its process dies."""

WATCHDOG = 300.0
"""Seconds: longer than any engine needs for one step, or one part of a load."""
