"""Tokens and facts of the reference backend against those of llama.cpp."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import pytest
from attrs import asdict

from llmcore.spi import BackendModel
from llmcore_conformance import models

if TYPE_CHECKING:
    from conftest import Load

TEXTS = [
    "",
    "Hello world",
    "  two  spaces,   three\n\n\nand lines \n",
    "It's they'll WE'VE I'm we'd O'Neill '",
    "1 22 333 4444 55555 3.14 ½ ² ٣",
    "naïve café, Straße, 日本語のテキスト, Ελληνικά, हिन्दी, עברית",
    "🙂👩‍👩‍👧 e\u0301 \u00a0\u2003\u3000 \u200b \x85 \x1c",
    "<s> </s> <|im_start|> <unk> <0x41> ▁ ▁▁the",
    "def f(x):\n\treturn x**2  # comment\r\n",
    "\x00\x01\x7f\ufffd",
]
TYPED = " \n\t'sdmlvertST019aZ.,!?  \r\x0b\x1c\x85\xa0\u2028é日🙂́▁\u017f"
UNSEEN = 400


@pytest.fixture(name="pairs", scope="module")
def _pairs(
    paths: dict[str, Path],
    smollm2: Path,
    smol: BackendModel,
    reference: Load,
    llama_cpp: Load,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[BackendModel, BackendModel]]:
    folder = tmp_path_factory.mktemp("vocabularies")
    files = {
        "llama": paths["llama"],
        "bert": paths["bert"],
        "gpt-2": tiny_bpe(folder / "gpt2.gguf", "gpt-2"),
        "llama-bpe": tiny_bpe(folder / "llama3.gguf", "llama-bpe"),
        "prefix": tiny_prefix(folder / "prefix.gguf"),
    }
    pairs = {name: (reference(path), llama_cpp(path)) for name, path in files.items()}
    return pairs | {"smollm": (smol, llama_cpp(smollm2))}


VOCABULARIES = ["llama", "bert", "gpt-2", "llama-bpe", "prefix", "smollm"]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokens(pairs: dict[str, tuple[BackendModel, BackendModel]], name: str) -> None:
    """Text of all kinds becomes the same tokens, whatever the vocabulary."""
    ours, theirs = pairs[name]

    for text in (*TEXTS, *random_texts()):
        assert ours.tokenize(text.encode()) == theirs.tokenize(text.encode()), text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_pieces(pairs: dict[str, tuple[BackendModel, BackendModel]], name: str) -> None:
    """Each token has the same bytes."""
    ours, theirs = pairs[name]

    for token in range(theirs.info.vocab_size):
        assert ours.piece(token) == theirs.piece(token)


@pytest.mark.parametrize("name", ["llama", "bert", "smollm"])
def test_facts(pairs: dict[str, tuple[BackendModel, BackendModel]], name: str) -> None:
    """What is known of a model does not depend on the engine, but for a few facts."""
    own = {"build", "description", "size_bytes", "capabilities", "metadata"}
    ours, theirs = (asdict(model.info, recurse=False) for model in pairs[name])

    assert {key: ours[key] for key in ours.keys() - own} == {
        key: theirs[key] for key in theirs.keys() - own
    }
    assert ours["metadata"].keys() <= theirs["metadata"].keys()


def test_invalid_text(
    pairs: dict[str, tuple[BackendModel, BackendModel]],
) -> None:
    """Bytes that are no text become the same tokens too."""
    ours, theirs = pairs["smollm"]

    for data in (b"\xff\xfe", b"a\xc3", b"\xe2\x82 \xf0\x9f\x99", b"\xed\xa0\x80"):
        assert ours.tokenize(data) == theirs.tokenize(data)


def random_texts() -> Iterator[str]:
    """Short texts of what is typed, mixed with any character of 15 years of Unicode."""
    draw = random.Random(4)
    known = [chr(n) for n in range(1, 0x30000) if not 0xD800 <= n < 0xE000]
    known = [c for c in known if unicodedata.category(c) != "Cn"]
    for _ in range(UNSEEN):
        pools = (known if draw.random() < 0.1 else TYPED for _ in range(20))
        yield "".join(draw.choice(pool) for pool in pools)


# -- vocabularies --------------------------------------------------------------------


def tiny_bpe(path: Path, splitting: str) -> Path:
    """A Llama with a byte-level vocabulary of a few merges."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(n) for n in (*shown, *range(0x100, 0x200 - len(shown)))]
    merges = ["t h", "Ġ t", "Ġt h", "Ġth e", "1 2", "2 2", "22 2", "Ċ Ċ", "Ġ Ġ", "' s"]
    texts = [*characters, *(merge.replace(" ", "") for merge in merges), "ĠHello"]
    kinds = [gguf.TokenType.NORMAL] * len(texts)
    texts += ["<|begin|>", "<|im_end|>", "<mark>"]
    kinds += [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.USER_DEFINED]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(texts.index("<|begin|>"))
    writer.add_eos_token_id(texts.index("<|im_end|>"))
    return _only_words(writer, path, texts, kinds)


def tiny_prefix(path: Path) -> Path:
    """SentencePiece with a space before all text, and tokens that a user defined."""
    tokens = list(models._tokens())
    texts = [*(token.text for token in tokens), "<mark>", "the cap", "日本"]
    kinds = [*(token.kind for token in tokens), *[gguf.TokenType.USER_DEFINED] * 3]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_scores([*(token.score for token in tokens), 0.0, 0.0, 0.0])
    return _only_words(writer, path, texts, kinds)


def _only_words(
    writer: gguf.GGUFWriter,
    path: Path,
    texts: list[str],
    kinds: list[gguf.TokenType],
) -> Path:
    width = 8
    models._sizes(writer, 1, width, 1, 1, width, 64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    dense = models.Dense(writer, 0)
    dense.matrix("token_embd.weight", len(texts), width)
    dense.ones("output_norm.weight", width)
    models._attention(dense, "blk.0.", width, 1, 1)
    models._feed_forward(dense, "blk.0.", width, width)
    return models._write(writer, path)
