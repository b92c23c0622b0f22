"""
`Subject`: all that is under test, and what it says that it can do.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from llmcore.values import BackendInfo, Capability, ModelInfo
from llmcore_conformance.model_files import with_embedding, with_model
from llmcore_conformance.target import Target


@frozen(kw_only=True)
class Subject:
    """
    An engine with its models; known before the first test.

    Attributes:
        target: The engine with the model that most tests use.

        embedder: The engine with the model that embedding is tested with.

        info: What the backend declares.

        model: What the model of ``target`` says; None if it cannot be loaded.

        problem: Why it cannot be loaded; empty if it can.

        capabilities: What can be tested.
    """

    target: Target
    embedder: Target
    info: BackendInfo
    model: ModelInfo | None
    problem: str
    capabilities: frozenset[Capability]


def find_subject(target: Target, folder: Path) -> Subject:
    """
    Choose the models for an engine, and ask them what they can do.

    Args:
        folder: Where to write model files.

    Raises:
        NoModelError: The suite knows no model that the engine could read.
    """
    target = with_model(target, folder)
    embedder = with_embedding(target, folder)
    info, (model, problem) = target.describe(), _ask(target)
    capabilities = info.capabilities if model is None else model.capabilities
    if embedder is not target:
        capabilities |= {Capability.EMBEDDING}
    return Subject(
        target=target,
        embedder=embedder,
        info=info,
        model=model,
        problem=problem,
        capabilities=capabilities,
    )


def _ask(target: Target) -> tuple[ModelInfo | None, str]:
    try:
        return target.ask(), ""
    except Exception as error:  # the tests will say what is wrong
        return None, f"{type(error).__name__}: {error}"
