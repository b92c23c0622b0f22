"""What the engine computes is what others compute, and depends on its tokens only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llmcore.spi import BackendModel
from llmcore.values import ContextParams, ModelParams
from llmcore_conformance import models

from . import legacy_models
from .conftest import Run
from .legacy_models import F16, HEADS, Q4_0, Image

if TYPE_CHECKING:
    from .conftest import Load, MakeRun

PROMPTS = ["Once upon a time", "hello the capital of France", "</s> 1 + 1 =", "é"]
TOKENS = [72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_llama_cpp_agrees(
    prompt: str, seed: int, load: Load, run: MakeRun, tmp_path: Path
) -> None:
    """On the same GGUF file llama.cpp finds the same tokens, and the same next ones."""
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python to compare with")
    from llmcore.backends.llama_cpp.backend import LlamaCppBackend

    path = models.tiny_llama(tmp_path / "tiny.gguf", seed=seed)
    mine = load(path)
    other = LlamaCppBackend().load_model(path, ModelParams(), lambda share: True)
    tokens = [1, *mine.tokenize(prompt.encode())]
    context = other.create_context(ContextParams(context_size=256, threads=1))
    try:
        assert tokens == [1, *other.tokenize(prompt.encode())]
        expected = Run(context).greedy(tokens, 24)
    finally:
        context.close()
        other.close()

    assert run(mine).greedy(tokens, 24) == expected


def test_gpt2(load: Load, run: MakeRun, tmp_path: Path) -> None:
    """The logits of a GPT-2 are those of its definition."""
    image = legacy_models.gpt2()
    model = load(image.write(tmp_path / "gpt2.bin"))

    logits = run(model).feed(TOKENS)

    np.testing.assert_allclose(logits, plain_gpt2(image, TOKENS), rtol=0.01, atol=0.05)


def plain_gpt2(image: Image, tokens: list[int]) -> NDArray[np.float64]:
    """GPT-2 (Radford et al. 2019) in NumPy; the logits after the last token."""
    get = image.tensors
    count = len(tokens)
    mask = np.triu(np.full((count, count), -np.inf), 1)

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * get[f"{name}/g"] + get[f"{name}/b"]

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ get[f"{name}/w"].T + get[f"{name}/b"]

    x = get["model/wte"][tokens].astype(float) + get["model/wpe"][:count]
    for layer in range(image.numbers["layers"]):
        block = f"model/h{layer}"
        joined = linear(norm(x, f"{block}/ln_1"), f"{block}/attn/c_attn")
        q, k, v = joined.reshape(count, 3, HEADS, -1).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        heads = (shares @ v).transpose(1, 0, 2).reshape(count, -1)
        x = x + linear(heads, f"{block}/attn/c_proj")
        inner = linear(norm(x, f"{block}/ln_2"), f"{block}/mlp/c_fc")
        bent = np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3))
        x = x + linear(0.5 * inner * (1 + bent), f"{block}/mlp/c_proj")
    return norm(x, "model/ln_f")[-1] @ get["model/lm_head"].T


def test_ggjt_is_gguf(load: Load, run: MakeRun, tmp_path: Path) -> None:
    """The same weights of a Llama compute the same in a ggjt as in a GGUF file."""
    image = legacy_models.llama()
    old = load(image.write(tmp_path / "llama.bin"))
    new = load(as_gguf(image, tmp_path / "llama.gguf"))
    tokens = [1, *TOKENS]

    logits = run(old).feed(tokens)

    np.testing.assert_allclose(logits, run(new).feed(tokens), atol=1e-4)


def test_ggmf(load: Load, run: MakeRun, tmp_path: Path) -> None:
    """A file without alignment, which cannot be mapped, computes the same."""
    make = legacy_models.llama
    aligned = load(make().write(tmp_path / "ggjt"))
    other = load(make(magic=b"fmgg", version=1).write(tmp_path / "ggmf"))

    logits = run(other).feed([1, *TOKENS])

    np.testing.assert_allclose(logits, run(aligned).feed([1, *TOKENS]), atol=1e-4)


def test_70b(load: Load, run: MakeRun, tmp_path: Path) -> None:
    """A name with "70b" means shared keys, as it does to the library."""
    image = legacy_models.llama(heads=8, groups=8)

    model = load(image.write(tmp_path / "llama-70b.bin"))

    assert model.info.kv_heads == 1
    assert run(model).feed(TOKENS).size == model.info.vocab_size


NEW_NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "layers": "blk",
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}


def as_gguf(image: Image, path: Path) -> Path:
    """A Llama as a GGUF file, whose tokens are named so as it must be."""
    numbers = image.numbers
    inner = len(image.tensors["layers.0.feed_forward.w1.weight"])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(numbers["embedding"])
    writer.add_block_count(numbers["layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(numbers["heads"])
    writer.add_layer_norm_rms_eps(5e-6)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(image.tokens) - len(kinds))
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += [token.decode().replace(" ", "▁") for token in image.tokens[259:]]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * len(texts))
    writer.add_token_types(kinds)
    for name, values in image.tensors.items():
        stem, _, end = name.rpartition(".")
        for old, new in NEW_NAMES.items():
            if stem == old or stem.endswith(f".{old}") or old == "layers":
                stem = stem.replace(old, new, 1)
        writer.add_tensor(f"{stem}.{end}", values)
    return models._write(writer, path)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gptneox"])
@pytest.mark.parametrize(("kind", "apart"), [(F16, 0.05), (Q4_0, 6.0)])
def test_types(
    name: str, kind: int, apart: float, load: Load, run: MakeRun, tmp_path: Path
) -> None:
    """Weights of half precision, or quantised, compute about the same."""
    make = legacy_models.MAKERS[name]
    exact = run(load(make().write(tmp_path / "f32"))).feed(TOKENS)

    logits = run(load(make(kind=kind).write(tmp_path / "other"))).feed(TOKENS)

    assert 0 < abs(logits - exact).max() < apart


def test_parts(model: BackendModel, run: MakeRun) -> None:
    """A text evaluated in parts is the same as evaluated at once."""
    whole = run(model).feed(TOKENS)
    parts = run(model, micro_batch_size=2)

    parts.feed(TOKENS[:5])
    parts.feed(TOKENS[5:6], 5)

    np.testing.assert_allclose(parts.feed(TOKENS[6:], 6), whole, atol=1e-3)


def test_truncated(model: BackendModel, run: MakeRun) -> None:
    """What comes after the removal of an end does not see what was there."""
    fresh = run(model).feed([*TOKENS[:6], 7])
    used = run(model)
    used.feed(TOKENS)

    assert used.context.remove(0, 6)
    assert used.context.bounds(0) == (0, 5)
    np.testing.assert_allclose(used.feed([7], 6), fresh, atol=1e-3)


def test_no_hole(model: BackendModel, run: MakeRun) -> None:
    """Something in the middle cannot be removed, and the cache stays as it is."""
    used = run(model)
    used.feed(TOKENS)

    assert not used.context.remove(0, 2, 4)
    assert used.context.bounds(0) == (0, len(TOKENS) - 1)


def test_rows(model: BackendModel, run: MakeRun) -> None:
    """Each row that asks for logits has its own."""
    from llmcore.spi import Batch

    alone = run(model).feed(TOKENS[:4])
    context = run(model).context
    outputs = [False, False, False, True] + [False] * 7 + [True]
    count = len(TOKENS)

    context.decode(Batch(TOKENS, range(count), [0] * count, outputs))

    np.testing.assert_allclose(context.logits(3), alone, atol=1e-3)
    assert not np.allclose(context.logits(11), alone)


def test_two_contexts(model: BackendModel, run: MakeRun) -> None:
    """Two contexts of a model know nothing of each other."""
    alone = run(model).feed(TOKENS)
    first, second = run(model), run(model)
    first.feed(TOKENS[:6])
    second.feed([9] * 20)

    np.testing.assert_allclose(first.feed(TOKENS[6:], 6), alone, atol=1e-3)


def test_overwritten(model: BackendModel, run: MakeRun) -> None:
    """A context whose memory was overwritten is as a new one."""
    fresh = run(model).feed(TOKENS)
    used = run(model)
    used.feed([9] * 20)

    used.context.clear(data=True)

    assert used.context.bounds(0) == (-1, -1)
    np.testing.assert_allclose(used.feed(TOKENS), fresh, atol=1e-3)
