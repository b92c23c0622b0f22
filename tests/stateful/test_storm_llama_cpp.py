"""A storm on a `ModelManager` with real engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcore.manager import ModelManager

from .storm import MINUTES, MODELS, Kind, Storm, answers_of

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")


def test_tiny_models(tmp_path: Path) -> None:
    """No answer is wrong, no accepted request is lost, no budget overrun, no hang."""
    from llmcore_conformance.models import tiny_llama

    def kind(number: int) -> Kind:
        path = tiny_llama(tmp_path / f"{number}.gguf", seed=number)
        exact = {"deterministic": True, "threads": 1}
        answers = answers_of("llama_cpp", path, **exact)
        return Kind(id=path.stem, load=loads(path, exact), answers=answers)

    kinds = [kind(number) for number in range(MODELS)]
    with ModelManager(budget=None, name=None) as manager:
        kinds[0].load(manager, "one", {})
        (size,) = manager.budget.holders.values()
    with ModelManager(budget=3 * size + size // 2, name=None) as manager:
        storm = Storm(manager, kinds, max_tokens=8)
        storm.run(16, seed=3, operations=300, seconds=60 * MINUTES)
        storm.report()
    assert storm.wrong == []
    assert storm.done["ask: answered"] > 20
    assert manager.budget.holders == {}


def loads(
    path: Path, params: dict[str, Any]
) -> Callable[[ModelManager, str, dict[str, Any]], object]:
    """A function that loads a model file with these parameters."""

    def load(manager: ModelManager, id: str, options: dict[str, Any]) -> object:
        return manager.load(
            id,
            path,
            backend="llama_cpp",
            context_size=64,
            sequences=2,
            **params,
            **options,
        )

    return load
