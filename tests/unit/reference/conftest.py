"""One model of each kind of memory, for all tests."""

from __future__ import annotations

import pytest

from llmcore.backends.reference.model import ReferenceModel

from . import kit


@pytest.fixture(name="models", scope="session")
def _models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReferenceModel]:
    folder = tmp_path_factory.mktemp("models")
    makers = {"llama": kit.llama, "mamba": kit.mamba}
    return {n: kit.load(make(folder / f"{n}.gguf")) for n, make in makers.items()}


@pytest.fixture(name="llama")
def _llama(models: dict[str, ReferenceModel]) -> ReferenceModel:
    return models["llama"]
