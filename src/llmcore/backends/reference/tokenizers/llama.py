"""SentencePiece, as the vocabularies of Llama 2, Mistral and Gemma have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings
from llmcore.backends.reference.tokenizers.tokenizer import Tokenizer, merge

SPACE = "▁"
"""Stands for a space in a vocabulary."""


class SentencePiece(Tokenizer):
    """
    Joins characters to the tokens of best score; what is no token becomes bytes
    (Kudo and Richardson 2018, arXiv:1808.06226).
    """

    defaults: ClassVar = {"bos": 1, "eos": 2}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._prefix = settings.flag("tokenizer.ggml.add_space_prefix", True)
        if len(self.vocabulary.scores) != len(self.vocabulary.texts):
            raise InvalidModelError("its vocabulary has not a score for each token")

    def encode(self, text: str) -> list[int]:
        """A space is put before, if the file says so; also after a defined token."""
        text = (" " if self._prefix else "") + text
        symbols = merge(text.replace(" ", SPACE), self._rank)
        return [token for symbol in symbols for token in self._tokens(symbol)]

    def _rank(self, left: str, right: str) -> float | None:
        number = self.vocabulary.numbers.get(left + right)
        return None if number is None else -self.vocabulary.scores[number]

    def _tokens(self, symbol: str) -> Iterator[int]:
        numbers = self.vocabulary.numbers
        if symbol in numbers:
            yield numbers[symbol]
            return
        for byte in symbol.encode():
            code = f"<0x{byte:02X}>"
            yield numbers[code if code in numbers else chr(byte)]

    def decode(self, text: str) -> bytes:
        """With spaces for what stands for them."""
        return text.replace(SPACE, " ").encode()
