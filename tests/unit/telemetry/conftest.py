"""An engine and a listener for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmcore import telemetry
from llmcore.telemetry import bus

from .kit import Ears, Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A null engine with a loaded model."""
    stage = Stage()
    yield stage
    stage.llama.dispose()


@pytest.fixture
def ears(stage: Stage) -> Iterator[Ears]:
    """Hears all but steps from when the model is loaded."""
    ears = Ears()
    with telemetry.listen(ears):
        yield ears


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """A test leaves no listener behind."""
    yield
    assert bus.ears == {}
