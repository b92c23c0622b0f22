"""Tiny models of the reference backend, and short words for what the tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import TokenType
from numpy.typing import NDArray

from llmcore.backends.reference.backend import ReferenceBackend
from llmcore.backends.reference.context import ReferenceContext
from llmcore.backends.reference.model import ReferenceModel
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams

WIDTH, INNER, LAYERS, LENGTH = 16, 24, 2, 64
WORDS = ["▁", "a", "b", "c", "▁a", "ab", "abc"]
MARK = "<mark>"
TEXTS = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *WORDS, MARK]
KINDS = [
    TokenType.UNKNOWN,
    *[TokenType.CONTROL] * 2,
    *[TokenType.BYTE] * 256,
    *[TokenType.NORMAL] * len(WORDS),
    TokenType.USER_DEFINED,
]
TEXT = [3 + 7 * n % 200 for n in range(24)]

LLAMA = {
    "attn_norm.weight": (WIDTH,),
    "attn_q.weight": (WIDTH, WIDTH),
    "attn_k.weight": (WIDTH // 2, WIDTH),
    "attn_v.weight": (WIDTH // 2, WIDTH),
    "attn_output.weight": (WIDTH, WIDTH),
    "ffn_norm.weight": (WIDTH,),
    "ffn_gate.weight": (INNER, WIDTH),
    "ffn_up.weight": (INNER, WIDTH),
    "ffn_down.weight": (WIDTH, INNER),
}
MAMBA = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (4 * WIDTH, WIDTH),
    "ssm_conv1d.weight": (2 * WIDTH, 4),
    "ssm_conv1d.bias": (2 * WIDTH,),
    "ssm_x.weight": (4 + 2 * 8, 2 * WIDTH),
    "ssm_dt.weight": (2 * WIDTH, 4),
    "ssm_dt.bias": (2 * WIDTH,),
    "ssm_a": (2 * WIDTH, 8),
    "ssm_d": (2 * WIDTH,),
    "ssm_out.weight": (WIDTH, 2 * WIDTH),
}

Change = Callable[[gguf.GGUFWriter], None]


def nothing(writer: gguf.GGUFWriter) -> None:
    """Leave a model as it is."""


def llama(path: Path, *, seed: int = 0, change: Change = nothing) -> Path:
    """A Llama of two layers; ``change`` adds to it."""
    writer = _writer(path, "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    return _write(writer, path, LLAMA, seed, change)


def mamba(path: Path, *, seed: int = 0, change: Change = nothing) -> Path:
    """A Mamba of two layers."""
    writer = _writer(path, "mamba")
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(2 * WIDTH)
    writer.add_ssm_state_size(8)
    writer.add_ssm_time_step_rank(4)
    return _write(writer, path, MAMBA, seed, change)


def _writer(path: Path, architecture: str) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TEXTS)
    writer.add_token_types(KINDS)
    writer.add_token_scores([float(len(text)) for text in TEXTS])
    return writer


def _write(
    writer: gguf.GGUFWriter,
    path: Path,
    block: dict[str, tuple[int, ...]],
    seed: int,
    change: Change,
) -> Path:
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TEXTS), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        values = draw.standard_normal(shape) / np.sqrt(shape[-1])
        if name.endswith("ssm_a"):
            values = -np.abs(values)  # what decays
        writer.add_tensor(name, values.astype(np.float32))
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path, **params: Any) -> ReferenceModel:
    """Load a file without looking at the progress."""
    backend = ReferenceBackend()
    return backend.load_model(path, ModelParams(**params), lambda share: True)


@contextmanager
def opened(model: ReferenceModel, **params: Any) -> Iterator[ReferenceContext]:
    """A context with 32-bit caches, closed in the end."""
    given: dict[str, Any] = {"context_size": 32, "kv_type_k": "f32", "kv_type_v": "f32"}
    context = model.create_context(ContextParams(**given | params))
    yield context
    context.close()


def feed(
    context: ReferenceContext, tokens: Sequence[int], sequence: int = 0, at: int = 0
) -> NDArray[np.float32]:
    """Evaluate tokens of one sequence; the logits after the last of them."""
    count = len(tokens)
    positions, last = range(at, at + count), [False] * (count - 1) + [True]
    context.decode(Batch(tokens, positions, [sequence] * count, last))
    return context.logits(count - 1).copy()


def same(left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
    """Equal but for the order of sums."""
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-4)
