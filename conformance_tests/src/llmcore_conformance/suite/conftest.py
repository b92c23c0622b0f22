"""Fixtures that only the suite itself needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmcore import Context, Model
from llmcore.values import Capability
from llmcore_conformance.probes import SIZE, FreshAnswers, Seam
from llmcore_conformance.target import Target


@pytest.fixture(scope="session")
def as_new(target: Target) -> FreshAnswers:
    """``as_new(prompt)`` is the greedy answer of a new sequence, 8 tokens."""
    return FreshAnswers(target)


@pytest.fixture
def wide_context(model: Model) -> Context:
    """A context with two sequences if the model can have them, else with one."""
    several = Capability.MULTI_SEQUENCE in model.capabilities
    return model.create_context(
        context_size=SIZE, sequences=2 if several else 1, threads=1
    )


@pytest.fixture
def other_tokens(prompt_tokens: list[int]) -> list[int]:
    """Another prompt of the same length, different from the first token on."""
    return prompt_tokens[::-1]


@pytest.fixture
def seam(target: Target) -> Iterator[Seam]:
    """The backend without core."""
    seam = Seam(target)
    yield seam
    seam.close()
