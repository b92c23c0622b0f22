"""
The conformance suite of llmcore: what every backend must do, as tests.

    pytest --pyargs llmcore_conformance.suite --llmcore-backend=NAME

Each test names the clause of the spec that it proves, by ``@clause("area.words")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    clause = pytest.mark.clause
    """Marks a test with the one clause of the spec that it proves."""

__version__ = "1.1.0"


def __getattr__(name: str) -> Any:
    if name != "clause":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # not for the programs that tests run in processes of their own

    return pytest.mark.clause
