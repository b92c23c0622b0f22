"""
The leak detective as a fixture of pytest.

    pytest_plugins = ["llmcore.testing.pytest"]    # in a test module or a conftest.py

    @pytest.mark.usefixtures("llmcore_leaks")
    def test_something(): ...
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmcore.testing.leak_error import LeakError
from llmcore.testing.leaks import LeakCheck, leak_check


@pytest.fixture
def llmcore_leaks() -> Iterator[LeakCheck]:
    """
    Lives around a test, which fails at its end if something was not given back.

    What fixtures made before it is theirs, and what they make after it must be
    disposed by them. Its value is a `LeakCheck`: ``llmcore_leaks.growth(...)``,
    ``llmcore_leaks.allow(...)``.
    """
    found = ""
    try:
        with leak_check() as check:
            yield check
    except LeakError as error:
        found = str(error)
    if found:
        pytest.fail(found, pytrace=False)
