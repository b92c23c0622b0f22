"""
The conformance suite of llmcore: what every backend must do, as tests.

    pytest --pyargs llmcore_conformance.suite --llmcore-backend=NAME

Each test names the clause of the spec that it proves, by ``@clause("area.words")``.
"""

from __future__ import annotations

import pytest

__version__ = "1.0.0"

clause = pytest.mark.clause
"""Marks a test with the one clause of the spec that it proves."""
