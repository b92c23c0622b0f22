"""
An engine in a process of its own, behind the same seam.
"""

from __future__ import annotations

from llmcore.isolation.backend import IsolatedBackend, isolated, isolated_info

__all__ = ["IsolatedBackend", "isolated", "isolated_info"]
