"""
Saved sequence state: its file format, and whether it belongs here. Knows no engine.
"""

from llmcore.state_file.files import read, write
from llmcore.state_file.layout import FORMAT
from llmcore.state_file.matching import check, differences
from llmcore.state_file.values import SavedState, StateHeader

__all__ = [
    "FORMAT",
    "SavedState",
    "StateHeader",
    "check",
    "differences",
    "read",
    "write",
]
