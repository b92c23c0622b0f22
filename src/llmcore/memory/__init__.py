"""
What models and contexts use of the memory: estimated, reserved, measured.
"""

from llmcore.memory.footprint import PURPOSES, Footprint, Purpose, Term, size_text

__all__ = ["PURPOSES", "Footprint", "Purpose", "Term", "size_text"]
