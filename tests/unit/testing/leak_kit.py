"""What the tests of leaks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmcore.testing import Leak, LeakError, leak_check


def leaks_of(work: Callable[[], object]) -> tuple[Leak, ...]:
    """What a check finds around some work."""
    with pytest.raises(LeakError) as caught, leak_check():
        work()
    error = caught.value
    assert str(error).endswith("\n".join(leak.text for leak in error.leaks))
    return error.leaks
