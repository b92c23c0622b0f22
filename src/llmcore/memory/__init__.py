"""
What models and contexts use of the memory: estimated, reserved, measured.
"""

from llmcore.memory.account import (
    Account,
    expected_weights,
    releasing,
    settled,
    spread,
    weights_of,
)
from llmcore.memory.budget import (
    RAM,
    Budget,
    Limit,
    Reservation,
    Share,
)
from llmcore.memory.footprint import PURPOSES, Footprint, Purpose, Term, size_text
from llmcore.memory.shortage import Pool, Shortage

__all__ = [
    "PURPOSES",
    "RAM",
    "Account",
    "Budget",
    "Footprint",
    "Limit",
    "Pool",
    "Purpose",
    "Reservation",
    "Share",
    "Shortage",
    "Term",
    "expected_weights",
    "releasing",
    "settled",
    "size_text",
    "spread",
    "weights_of",
]
