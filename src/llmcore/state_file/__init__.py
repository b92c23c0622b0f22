"""
Saved sequence state: its file format, and whether it belongs here. Knows no engine.
"""

from llmcore.state_file.files import Path, read, write
from llmcore.state_file.layout import FORMAT
from llmcore.state_file.matching import OnMismatch, check, differences
from llmcore.state_file.values import SavedState, StateHeader

__all__ = [
    "FORMAT",
    "OnMismatch",
    "Path",
    "SavedState",
    "StateHeader",
    "check",
    "differences",
    "read",
    "write",
]
