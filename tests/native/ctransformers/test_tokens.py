"""Text becomes tokens without loss, and never a control token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from llmcore.spi import BackendModel

from ...unit.fuzz_model_file import TOKENS, Image, array, scalar, tiny_image

if TYPE_CHECKING:
    from .conftest import Load

TEXTS = [
    b"",
    b" ",
    b"hello the capital",
    b"\0",
    b"a\0\0b\0",
    b"\xff\xfe hello \xe2\x82",
    "€ naïve \N{GRINNING FACE}\n\t".encode(),
    b"<s> </s> <unk> <0x41> <|im_end|> <|endoftext|>",
    bytes(range(256)),
    b" hello" * 2000,
    b"x" * 20_000,
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_whole(model: BackendModel, text: bytes) -> None:
    """The pieces of the tokens of any bytes are those bytes."""
    tokens = model.tokenize(text)

    assert b"".join(map(model.piece, tokens)) == text


def test_no_control(model: BackendModel) -> None:
    """Text that looks like a control token stays text, and that token has no text."""
    for text, number in model.info.special_tokens.items():
        assert number not in model.tokenize(f"a{text}b".encode())
        assert model.piece(number) == b""


def test_out_of_range(model: BackendModel) -> None:
    """A number that is no token is refused."""
    for number in (-1, model.info.vocab_size):
        with pytest.raises(ValueError, match="token must be between 0 and"):
            model.piece(number)


def renamed(names: dict[bytes, bytes]) -> Image:
    """A tiny model with other texts for some of its tokens."""
    image = tiny_image()
    tokens = [names.get(token, token) for token in TOKENS]
    key = b"tokenizer.ggml.tokens"
    return evolve(image, values={**image.values, key: array("string", tokens)})


def test_merged_control(load: Load, tmp_path: Path) -> None:
    """A control token is no merge of its parts, though the library thinks so."""
    names = {b"v": b"<", b"w": b"/", b"x": b">", b"y": b"</", b"z": b"</s"}
    path = tmp_path / "merged.gguf"
    path.write_bytes(bytes(renamed(names)))
    model = load(path)

    tokens = model.tokenize(b"a</s>b")

    assert model.info.special_tokens["</s>"] not in tokens
    assert b"".join(map(model.piece, tokens)) == b" a</s>b"


@pytest.mark.parametrize(("prefix", "text"), [(True, b" a b"), (False, b"a b")])
def test_space(prefix: bool, text: bytes, load: Load, tmp_path: Path) -> None:
    """A space comes before a text if the model says so, and only then."""
    image = tiny_image()
    key = b"tokenizer.ggml.add_space_prefix"
    image = evolve(image, values={**image.values, key: scalar("bool", prefix)})
    path = tmp_path / "space.gguf"
    path.write_bytes(bytes(image))
    model = load(path)

    assert b"".join(map(model.piece, model.tokenize(b"a b"))) == text


def test_longest(paths: dict[str, Path], load: Load) -> None:
    """A GPT takes the longest tokens, word by word."""
    model = load(paths["gptj"])

    pieces = list(map(model.piece, model.tokenize(b"the hello capitals")))

    assert pieces == [b"the", b" hello", b" capital", b"s"]
