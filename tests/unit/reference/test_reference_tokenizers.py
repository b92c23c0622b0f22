"""Tokenizers: merging, cutting, and which tokens have which text."""

from __future__ import annotations

import pytest
from gguf import TokenType

from llmcore.backends.reference import tokenizers
from llmcore.backends.reference.gguf_file import InvalidModelError, Settings
from llmcore.backends.reference.model import ReferenceModel
from llmcore.backends.reference.tokenizers.gpt2 import SPLITTINGS, cut
from llmcore.backends.reference.tokenizers.tokenizer import merge

from .kit import MARK, TEXTS


def test_merge_order() -> None:
    """The lowest rank goes first, and of equals the leftmost."""
    ranks = {("b", "c"): 0, ("a", "b"): 1, ("a", "bc"): 2, ("c", "c"): 3}

    def joined(text: str) -> list[str]:
        return list(merge(text, lambda left, right: ranks.get((left, right))))

    assert joined("abc") == ["abc"]
    assert joined("abab") == ["ab", "ab"]
    assert joined("ccc") == ["cc", "c"]
    assert joined("") == []


def test_bytes(llama: ReferenceModel) -> None:
    """What is no token of the vocabulary becomes its bytes, and back."""
    text = "abé🙂".encode()
    tokens = llama.tokenize(text)

    assert len(tokens) == 1 + 1 + 2 + 4  # the space before it, "ab", and the rest
    assert b"".join(map(llama.piece, tokens)) == b" " + text


def test_defined(llama: ReferenceModel) -> None:
    """A token that a user defined is found in text; one for control is not."""
    mark = TEXTS.index(MARK)

    assert llama.tokenize(f"a{MARK}{MARK}a".encode()).count(mark) == 2
    assert TEXTS.index("</s>") not in llama.tokenize(b"a</s>a")


def test_hidden(llama: ReferenceModel) -> None:
    """Control tokens and the unknown one have no text."""
    assert [llama.piece(token) for token in (0, 1, 2)] == [b"", b"", b""]
    assert llama.piece(TEXTS.index(MARK)) == MARK.encode()


@pytest.mark.parametrize("token", [-1, len(TEXTS)])
def test_no_such_token(llama: ReferenceModel, token: int) -> None:
    """A number that is no token's is refused."""
    with pytest.raises(ValueError, match="token must be between 0 and"):
        llama.piece(token)


def test_words() -> None:
    """Digits stand alone for SmolLM2; a space belongs to the word after it."""
    words = ["It's 42  é!\n\n x"]
    for pattern in SPLITTINGS["smollm"].patterns:
        words = [part for word in words for part in cut(pattern, word)]

    assert words == ["It", "'s", " ", "4", "2", " ", " é", "!", "\n\n", " x"]


def test_groups_of_digits() -> None:
    """Llama 3 takes digits by three."""
    (pattern,) = SPLITTINGS["llama-bpe"].patterns

    assert cut(pattern, "12345") == ["123", "45"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "t5"}, "tokenizer 't5' is not known here, only llama, gpt2, bert"),
        ({"model": "gpt2", "pre": "other"}, "pre-tokenizer 'other' is not known here"),
        ({"tokens": []}, "it has no vocabulary"),
        ({"scores": []}, "has not a score for each token"),
        ({"model": "bert"}, "no token for what is unknown"),
    ],
)
def test_refused(changes: dict[str, object], why: str) -> None:
    """A vocabulary that cannot be used is refused, saying why."""
    found: dict[str, object] = {
        "model": "llama",
        "tokens": ["a", "b"],
        "scores": [1.0, 2.0],
        "token_type": [TokenType.NORMAL] * 2,
    }
    metadata = {f"tokenizer.ggml.{k}": v for k, v in (found | changes).items()}
    if not changes.get("tokens", True):
        metadata["tokenizer.ggml.token_type"] = []
    settings = Settings({"general.architecture": "llama"} | metadata)

    with pytest.raises(InvalidModelError, match=why):
        tokenizers.create(settings)
