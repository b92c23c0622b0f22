"""Models and contexts for the tests of the ctransformers backend at the seam."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmcore.spi import BackendContext, BackendModel, Batch
from llmcore.values import ContextParams, ModelParams

from .legacy_models import MAKERS

if TYPE_CHECKING:
    from llmcore.backends.ctransformers.backend import CtransformersBackend

Logits = NDArray[np.float32]
Load = Callable[[Path], BackendModel]


class Run:
    """A context with short words for what the tests do with it."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    def feed(self, tokens: Sequence[int], at: int = 0) -> Logits:
        """Evaluate tokens from position ``at`` on; the logits after the last one."""
        count = len(tokens)
        last = [False] * (count - 1) + [True]
        positions = range(at, at + count)
        self.context.decode(Batch(tokens, positions, [0] * count, last))
        return self.context.logits(count - 1).copy()

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """The most likely tokens after some tokens, one after the other."""
        chosen = [int(self.feed(tokens).argmax())]
        for position in range(len(tokens), len(tokens) + count - 1):
            chosen.append(int(self.feed(chosen[-1:], position).argmax()))
        return chosen


MakeRun = Callable[..., Run]


@pytest.fixture(name="backend", scope="session", autouse=True)
def _backend() -> CtransformersBackend:
    if importlib.util.find_spec("ctransformers") is None:
        pytest.skip("needs the engine: pip install ctransformers")
    from llmcore.backends.ctransformers.backend import CtransformersBackend

    return CtransformersBackend()


@pytest.fixture(name="paths", scope="session")
def _paths(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("legacy")
    legacy = {name: make().write(folder / name) for name, make in MAKERS.items()}
    return {"gguf": tiny_model} | legacy


@pytest.fixture(name="load")
def _load(backend: CtransformersBackend) -> Iterator[Load]:
    """Load models that are closed when the test ends."""
    with ExitStack() as stack:

        def load(path: Path) -> BackendModel:
            model = backend.load_model(path, ModelParams(), lambda share: True)
            stack.callback(model.close)
            return model

        yield load


@pytest.fixture(name="run")
def _run(load: Load) -> Iterator[MakeRun]:
    """Create contexts that are closed when the test ends, before their models."""
    with ExitStack() as stack:

        def run(model: BackendModel, **params: Any) -> Run:
            params = {"context_size": 64, "threads": 1} | params
            context = model.create_context(ContextParams(**params))
            stack.callback(context.close)
            return Run(context)

        yield run


@pytest.fixture(name="kind", params=["gguf", *MAKERS])
def _kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="model")
def _model(kind: str, paths: dict[str, Path], load: Load) -> BackendModel:
    """A model of each kind."""
    return load(paths[kind])
