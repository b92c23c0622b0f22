"""Tokenizers, by the name that GGUF files have for them."""

from __future__ import annotations

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings
from llmcore.backends.reference.tokenizers.bert import WordPiece
from llmcore.backends.reference.tokenizers.gpt2 import ByteLevel
from llmcore.backends.reference.tokenizers.llama import SentencePiece
from llmcore.backends.reference.tokenizers.tokenizer import Tokenizer

KINDS: dict[str, type[Tokenizer]] = {
    "llama": SentencePiece,
    "gpt2": ByteLevel,
    "bert": WordPiece,
}


def create(settings: Settings) -> Tokenizer:
    """
    The tokenizer of a file.

    Raises:
        InvalidModelError: It is of another kind, or damaged.
    """
    name = settings.text("tokenizer.ggml.model")
    if name not in KINDS:
        raise InvalidModelError(
            f"its tokenizer {name!r} is not known here, only {', '.join(KINDS)}"
        )
    return KINDS[name](settings)
