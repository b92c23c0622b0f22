"""
Tiny GGUF models with random weights, for tests: made in a tenth of a second each.

They are real files of real architectures, so that a real engine runs them; their
answers are noise, but the same noise for the same ``seed``. Greedy answers never
contain a control token, so a generation ends where the test says.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from string import ascii_letters, digits, punctuation
from typing import NamedTuple

import gguf
import numpy as np
from gguf import TokenType
from numpy.typing import NDArray

__all__ = [
    "CHAT_TEMPLATE",
    "tiny_embedding",
    "tiny_llama",
    "tiny_recurrent",
    "tiny_sliding_window",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as many small chat models use it."""

UNKNOWN, BOS, EOS, IM_START, IM_END = 0, 1, 2, 259, 260

# fmt: off
MERGES = [
    "▁t", "▁a", "▁s", "▁th", "▁the", "he", "in", "er", "an", "re",
    "on", "is", "at", "or", "en", "nd", "▁and", "ing", "ll", "ell",
    "llo", "▁h", "▁he", "▁hell", "▁hello", "ca", "ap", "pi", "tal", "▁c",
    "▁ca", "▁cap", "▁capi", "▁capital", "▁o", "▁of", "▁F", "▁Fr", "ance", "ce",
    "ou", "st",
]
# fmt: on


class Token(NamedTuple):
    """One entry of a vocabulary."""

    text: str
    kind: TokenType
    score: float = 0.0


class Dense:
    """Draws the weights of one model and writes them."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._random = np.random.default_rng(seed)

    def matrix(self, name: str, rows: int, columns: int) -> None:
        """A layer from ``columns`` to ``rows`` that keeps the size of its input."""
        self.write(name, self.normal(rows, columns) / np.sqrt(columns))

    def ones(self, name: str, *shape: int) -> None:
        """The weights of a normalisation."""
        self.write(name, np.ones(shape))

    def zeros(self, name: str, *shape: int) -> None:
        """A bias."""
        self.write(name, np.zeros(shape))

    def normal(self, *shape: int) -> NDArray[np.float64]:
        return self._random.standard_normal(shape)

    def write(self, name: str, values: NDArray[np.float64]) -> None:
        self._writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))


def tiny_llama(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    layers: int = 2,
    embedding: int = 64,
    heads: int = 2,
    kv_heads: int = 1,
    feed_forward: int = 96,
    context: int = 1024,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """
    A Llama with a chat template, and a vocabulary with all 256 bytes.

    Args:
        path: Where to write it.

        embedding: A multiple of ``heads``; with ``embedding / heads`` a multiple of
            32, each element type can be used for its cache.

        context: The length that it claims to be trained for.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _sizes(writer, layers, embedding, heads, kv_heads, feed_forward, context)
    writer.add_rope_dimension_count(embedding // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    _vocabulary(writer, chat_template)
    dense = Dense(writer, seed)
    _ends(dense, embedding)
    for layer in range(layers):
        block = f"blk.{layer}."
        _attention(dense, block, embedding, heads, kv_heads)
        _feed_forward(dense, block, embedding, feed_forward)
    return _write(writer, path)


def tiny_sliding_window(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    embedding: int = 64,
    window: int = 64,
    context: int = 1024,
) -> Path:
    """A Gemma 3 of two layers; the first one sees only the last ``window`` tokens."""
    heads, kv_heads, feed_forward, layers = 2, 1, 96, 2
    writer = gguf.GGUFWriter(path, "gemma3")
    _sizes(writer, layers, embedding, heads, kv_heads, feed_forward, context)
    writer.add_key_length(embedding // heads)
    writer.add_value_length(embedding // heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_sliding_window(window)
    writer.add_sliding_window_pattern(layers)
    _vocabulary(writer, CHAT_TEMPLATE)
    dense = Dense(writer, seed)
    _ends(dense, embedding)
    for layer in range(layers):
        block = f"blk.{layer}."
        _attention(dense, block, embedding, heads, kv_heads)
        _feed_forward(dense, block, embedding, feed_forward)
        for name in ("attn_q_norm", "attn_k_norm"):
            dense.ones(f"{block}{name}.weight", embedding // heads)
        for name in ("post_attention_norm", "post_ffw_norm"):
            dense.ones(f"{block}{name}.weight", embedding)
    return _write(writer, path)


def tiny_recurrent(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    layers: int = 2,
    embedding: int = 64,
    context: int = 1024,
) -> Path:
    """A Mamba: its memory is one state, of which no part can be removed."""
    inner, kernel, state, rank = 2 * embedding, 4, 16, 8
    writer = gguf.GGUFWriter(path, "mamba")
    _sizes(writer, layers, embedding, 0, None, 0, context)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    _vocabulary(writer, CHAT_TEMPLATE)
    dense = Dense(writer, seed)
    _ends(dense, embedding)
    for layer in range(layers):
        block = f"blk.{layer}."
        dense.ones(f"{block}attn_norm.weight", embedding)
        dense.matrix(f"{block}ssm_in.weight", 2 * inner, embedding)
        dense.matrix(f"{block}ssm_conv1d.weight", inner, kernel)
        dense.zeros(f"{block}ssm_conv1d.bias", inner)
        dense.matrix(f"{block}ssm_x.weight", rank + 2 * state, inner)
        dense.matrix(f"{block}ssm_dt.weight", inner, rank)
        dense.zeros(f"{block}ssm_dt.bias", inner)
        dense.write(f"{block}ssm_a", -np.tile(np.arange(1.0, state + 1), (inner, 1)))
        dense.ones(f"{block}ssm_d", inner)
        dense.matrix(f"{block}ssm_out.weight", embedding, inner)
    return _write(writer, path)


def tiny_embedding(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    layers: int = 2,
    embedding: int = 64,
    context: int = 512,
) -> Path:
    """A BERT with mean pooling and a WordPiece vocabulary of ASCII characters."""
    heads, feed_forward = 2, 128
    writer = gguf.GGUFWriter(path, "bert")
    _sizes(writer, layers, embedding, heads, None, feed_forward, context)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    size = _word_pieces(writer)
    dense = Dense(writer, seed)
    dense.write("token_embd.weight", dense.normal(size, embedding))
    dense.write("position_embd.weight", dense.normal(context, embedding))
    dense.write("token_types.weight", dense.normal(2, embedding))
    _layer_norm(dense, "token_embd_norm", embedding)
    for layer in range(layers):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _linear(dense, block + name, embedding, embedding)
        _layer_norm(dense, f"{block}attn_output_norm", embedding)
        _linear(dense, f"{block}ffn_up", feed_forward, embedding)
        _linear(dense, f"{block}ffn_down", embedding, feed_forward)
        _layer_norm(dense, f"{block}layer_output_norm", embedding)
    return _write(writer, path)


# -- parts of the networks -----------------------------------------------------------


def _attention(
    dense: Dense, block: str, embedding: int, heads: int, kv_heads: int
) -> None:
    narrow = embedding // heads * kv_heads
    dense.ones(f"{block}attn_norm.weight", embedding)
    dense.matrix(f"{block}attn_q.weight", embedding, embedding)
    dense.matrix(f"{block}attn_k.weight", narrow, embedding)
    dense.matrix(f"{block}attn_v.weight", narrow, embedding)
    dense.matrix(f"{block}attn_output.weight", embedding, embedding)


def _feed_forward(dense: Dense, block: str, embedding: int, feed_forward: int) -> None:
    dense.ones(f"{block}ffn_norm.weight", embedding)
    dense.matrix(f"{block}ffn_gate.weight", feed_forward, embedding)
    dense.matrix(f"{block}ffn_up.weight", feed_forward, embedding)
    dense.matrix(f"{block}ffn_down.weight", embedding, feed_forward)


def _linear(dense: Dense, name: str, rows: int, columns: int) -> None:
    dense.matrix(f"{name}.weight", rows, columns)
    dense.zeros(f"{name}.bias", rows)


def _layer_norm(dense: Dense, name: str, size: int) -> None:
    dense.ones(f"{name}.weight", size)
    dense.zeros(f"{name}.bias", size)


def _ends(dense: Dense, embedding: int) -> None:
    """What comes first and last: tokens to vectors, and vectors to tokens."""
    tokens = list(_tokens())
    # A logit of 0 is never the greatest of some hundred random ones.
    quiet = {TokenType.CONTROL: 0.0, TokenType.UNKNOWN: 0.0, TokenType.BYTE: 0.5}
    rows = np.array([[quiet.get(token.kind, 1.0)] for token in tokens])
    # Small beside what the layers add, so that all tokens before have a say.
    dense.write("token_embd.weight", 0.25 * dense.normal(len(tokens), embedding))
    dense.ones("output_norm.weight", embedding)
    dense.write("output.weight", rows * dense.normal(len(tokens), embedding))


# -- vocabularies and files ----------------------------------------------------------


def _tokens() -> Iterator[Token]:
    """A SentencePiece vocabulary; a longer piece has the better score."""
    yield Token("<unk>", TokenType.UNKNOWN)
    yield Token("<s>", TokenType.CONTROL)
    yield Token("</s>", TokenType.CONTROL)
    for byte in range(256):
        yield Token(f"<0x{byte:02X}>", TokenType.BYTE)
    yield Token("<|im_start|>", TokenType.CONTROL)
    yield Token("<|im_end|>", TokenType.CONTROL)
    for text in ["▁", *ascii_letters, *digits, *punctuation, *MERGES]:
        yield Token(text, TokenType.NORMAL, float(len(text)))


def _vocabulary(writer: gguf.GGUFWriter, chat_template: str | None) -> None:
    tokens = list(_tokens())
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_scores([token.score for token in tokens])
    writer.add_token_types([token.kind for token in tokens])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_eot_token_id(IM_END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _word_pieces(writer: gguf.GGUFWriter) -> int:
    """A WordPiece vocabulary: each character at the start and inside of a word."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = ascii_letters.lower() + digits + punctuation
    texts = [*special, *dict.fromkeys(f"▁{c}" for c in characters)]
    texts += dict.fromkeys(characters)
    kinds = [TokenType.CONTROL] * len(special)
    kinds += [TokenType.NORMAL] * (len(texts) - len(special))
    kinds[1] = TokenType.UNKNOWN
    writer.add_vocab_size(len(texts))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(True)
    return len(texts)


def _sizes(
    writer: gguf.GGUFWriter,
    layers: int,
    embedding: int,
    heads: int,
    kv_heads: int | None,
    feed_forward: int,
    context: int,
) -> None:
    writer.add_name(f"tiny {writer.arch}")
    writer.add_context_length(context)
    writer.add_embedding_length(embedding)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads if kv_heads is None else kv_heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write(writer: gguf.GGUFWriter, path: str | PathLike[str]) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(fspath(path))
