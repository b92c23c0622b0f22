"""The same model files in the reference backend and in llama.cpp."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.reference.backend import ReferenceBackend
from llmcore.spi import Backend, BackendContext, BackendModel, Batch
from llmcore.values import ContextParams, ModelParams
from llmcore_conformance import models

EXACT = {"kv_type_k": "f32", "kv_type_v": "f32", "flash_attention": False}
"""A context that rounds nothing, in either engine."""

Logits = NDArray[np.float32]
Load = Callable[[Path], BackendModel]


class Run:
    """A context with short words for what the tests do with it."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    def feed(self, tokens: Sequence[int], sequence: int = 0, at: int = 0) -> Logits:
        """Evaluate tokens from position ``at`` on; the logits after each of them."""
        count = len(tokens)
        self.context.decode(
            Batch(
                list(tokens), range(at, at + count), [sequence] * count, [True] * count
            )
        )
        return np.array([self.context.logits(row) for row in range(count)])


MakeRun = Callable[..., Run]


@pytest.fixture(name="run")
def _run() -> Iterator[MakeRun]:
    """Create contexts that are closed when the test ends."""
    with ExitStack() as stack:

        def run(model: BackendModel, **params: Any) -> Run:
            given: dict[str, Any] = {"context_size": 256, "threads": 1} | EXACT
            context = model.create_context(ContextParams(**given | params))
            stack.callback(context.close)
            return Run(context)

        yield run


def _loader(backend: Backend) -> Iterator[Load]:
    with ExitStack() as stack:

        def load(path: Path) -> BackendModel:
            model = backend.load_model(path, ModelParams(), lambda share: True)
            stack.callback(model.close)
            return model

        yield load


@pytest.fixture(name="reference", scope="session")
def _reference() -> Iterator[Load]:
    yield from _loader(ReferenceBackend())


@pytest.fixture(name="llama_cpp", scope="session")
def _llama_cpp() -> Iterator[Load]:
    yield from _loader(LlamaCppBackend())


@pytest.fixture(name="paths", scope="session")
def _paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    makers: dict[str, Callable[..., Path]] = {
        "llama": models.tiny_llama,
        "linear": tiny_linear,
        "yarn": tiny_yarn,
        "factors": tiny_factors,
        "biased": tiny_biased,
        "tied": tiny_tied,
        "gemma3": models.tiny_sliding_window,
        "mamba": models.tiny_recurrent,
        "bert": models.tiny_embedding,
    }
    return {name: make(folder / f"{name}.gguf") for name, make in makers.items()}


@pytest.fixture(name="smol", scope="session")
def _smol(smollm2: Path, reference: Load) -> BackendModel:
    return reference(smollm2)


@pytest.fixture(name="smol_floats", scope="session")
def _smol_floats(smollm2: Path) -> Iterator[Path]:
    """SmolLM2 with its weights as 32-bit floats, 540 MB: llama.cpp rounds none then."""
    with tempfile.TemporaryDirectory() as folder:
        yield _as_floats(smollm2, Path(folder) / "floats.gguf")


def _as_floats(source: Path, target: Path) -> Path:
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    for key, entry in reader.fields.items():
        if key != "general.architecture" and not key.startswith("GGUF."):
            kind, *inner = entry.types
            inner_kind = inner[-1] if inner else None
            writer.add_key_value(key, entry.contents(), kind, sub_type=inner_kind)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.array(values))
    return models._write(writer, target)


# -- variants of Llama ---------------------------------------------------------------

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 96, 1024
BIASES = {
    "attn_q": EMBEDDING,
    "attn_k": EMBEDDING // HEADS,
    "attn_v": EMBEDDING // HEADS,
    "attn_output": EMBEDDING,
    "ffn_gate": FEED_FORWARD,
    "ffn_up": FEED_FORWARD,
    "ffn_down": EMBEDDING,
}
Dense = models.Dense


def tiny_linear(path: Path) -> Path:
    """Positions count half, and from another base."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_rope_freq_base(500_000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.0)
    return _llama(writer, path)


def tiny_yarn(path: Path) -> Path:
    """Only slow pairs are scaled, and all are stretched."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(CONTEXT // 4)
    return _llama(writer, path)


def tiny_factors(path: Path) -> Path:
    """A factor for each pair, as Llama 3 has them."""
    factors = np.linspace(1.0, 8.0, EMBEDDING // HEADS // 2)
    writer = gguf.GGUFWriter(path, "llama")
    return _llama(writer, path, lambda dense: dense.write("rope_freqs.weight", factors))


def tiny_biased(path: Path) -> Path:
    """Biases in its attention and in its feed-forward layers."""

    def more(dense: Dense) -> None:
        for layer in range(2):
            for name, size in BIASES.items():
                dense.write(f"blk.{layer}.{name}.bias", dense.normal(size))

    return _llama(gguf.GGUFWriter(path, "llama"), path, more)


def tiny_tied(path: Path) -> Path:
    """The same vectors at both ends."""
    return _llama(gguf.GGUFWriter(path, "llama"), path, tied=True)


def _llama(
    writer: gguf.GGUFWriter,
    path: Path,
    more: Callable[[Dense], None] = lambda dense: None,
    *,
    tied: bool = False,
) -> Path:
    models._sizes(writer, 2, EMBEDDING, HEADS, 1, FEED_FORWARD, CONTEXT)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    models._vocabulary(writer, models.CHAT_TEMPLATE)
    dense = Dense(writer, 0)
    if tied:
        size = len(list(models._tokens()))
        dense.write("token_embd.weight", dense.normal(size, EMBEDDING))
        dense.ones("output_norm.weight", EMBEDDING)
    else:
        models._ends(dense, EMBEDDING)
    for layer in range(2):
        models._attention(dense, f"blk.{layer}.", EMBEDDING, HEADS, 1)
        models._feed_forward(dense, f"blk.{layer}.", EMBEDDING, FEED_FORWARD)
    more(dense)
    return models._write(writer, path)
