"""Tiny models and contexts for the tests of the cyllama backend at the seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams
from llmcore_conformance import models
from llmcore_cyllama.backend import CyllamaBackend
from llmcore_cyllama.context import CyllamaContext
from llmcore_cyllama.model import CyllamaModel

Logits = NDArray[np.float32]
Load = Callable[[Path], CyllamaModel]
Create = Callable[..., CyllamaContext]
Feed = Callable[..., Logits]


@pytest.fixture(name="backend", scope="session")
def _backend() -> CyllamaBackend:
    return CyllamaBackend()


@pytest.fixture(name="paths", scope="session")
def _paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": models.tiny_llama(folder / "llama.gguf"),
        "sliding": models.tiny_sliding_window(folder / "sliding.gguf"),
        "recurrent": models.tiny_recurrent(folder / "recurrent.gguf"),
        "embedding": models.tiny_embedding(folder / "embedding.gguf"),
    }


@pytest.fixture(name="load")
def _load(backend: CyllamaBackend) -> Iterator[Load]:
    with ExitStack() as stack:

        def load(path: Path) -> CyllamaModel:
            model = backend.load_model(path, ModelParams(), lambda share: True)
            stack.callback(model.close)
            return model

        yield load


@pytest.fixture(name="llama")
def _llama(load: Load, paths: dict[str, Path]) -> CyllamaModel:
    return load(paths["llama"])


@pytest.fixture(name="create")
def _create(load: Load) -> Iterator[Create]:
    """``create(model, **params)``; a small context, closed before its model."""
    with ExitStack() as stack:

        def create(model: CyllamaModel, **fields: Any) -> CyllamaContext:
            defaults = {"context_size": 256, "threads": 1}
            context = model.create_context(ContextParams(**defaults | fields))
            stack.callback(context.close)
            return context

        yield create


@pytest.fixture(name="feed")
def _feed() -> Feed:
    """``feed(context, tokens, sequence)`` appends; the logits after the last one."""

    def feed(
        context: CyllamaContext, tokens: Sequence[int], sequence: int = 0
    ) -> Logits:
        start, count = context.bounds(sequence)[1] + 1, len(tokens)
        positions = range(start, start + count)
        outputs = [*[False] * (count - 1), True]
        context.decode(Batch(tokens, positions, [sequence] * count, outputs))
        return context.logits(count - 1)

    return feed
