"""WordPiece, as the vocabularies of BERT have it."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from typing import ClassVar

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings
from llmcore.backends.reference.tokenizers.tokenizer import Tokenizer

START = "▁"
"""Marks the start of a word in the vocabulary."""

CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),  # from 2B820 on, but the original has it so
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
WHITE_SPACE = frozenset("\t\n\v\f\r\x85\u2028\u2029")
"""Besides the characters of category Z."""


class WordPiece(Tokenizer):
    """
    Cuts words into the longest tokens from the left (Schuster and Nakajima 2012); a
    word that cannot be cut so is unknown as a whole.
    """

    defaults: ClassVar = {"bos": 101, "unknown": 100}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        normalizer = "tokenizer.ggml.normalizer"
        self._lowercase = settings.flag(f"{normalizer}.lowercase", True)
        self._strip = settings.flag(f"{normalizer}.strip_accents", self._lowercase)
        self._longest = max(map(len, self.vocabulary.texts))
        if "unknown" not in self.vocabulary.special:
            raise InvalidModelError("its vocabulary has no token for what is unknown")

    def encode(self, text: str) -> list[int]:
        """Word by word; what separates them is gone."""
        return [
            token for word in self._words(text) for token in self._cut(START + word)
        ]

    def _cut(self, word: str) -> list[int]:
        tokens, start = list[int](), 0
        while start < len(word):
            ends = range(min(len(word), start + self._longest), start, -1)
            parts = (word[start:end] for end in ends)
            found = next((p for p in parts if p in self.vocabulary.numbers), None)
            if found is None:
                return [self.vocabulary.special["unknown"]]
            tokens.append(self.vocabulary.numbers[found])
            start += len(found)
        return tokens

    def _words(self, text: str) -> Iterator[str]:
        """Runs of characters between spaces; those that stand alone are words too."""
        if self._strip:
            text = unicodedata.normalize("NFD", text)
        kept = filter(self._kept, text)
        for kind, run in itertools.groupby(kept, _kind):
            if kind == "alone":
                yield from map(self._lowered, run)
            elif kind == "word":
                yield "".join(map(self._lowered, run))

    def _kept(self, character: str) -> bool:
        if _kind(character) == "space":
            return True
        group = unicodedata.category(character)
        control = group in ("Cc", "Cf", "Co", "Cs") or character in "\0\ufffd"
        return not control and not (self._strip and group[0] == "M")

    def _lowered(self, character: str) -> str:
        lowered = character.lower() if self._lowercase else character
        return lowered if len(lowered) == 1 else character

    def decode(self, text: str) -> bytes:
        """With a space before a word."""
        return text.replace(START, " ").encode()


def _kind(character: str) -> str:
    group = unicodedata.category(character)[0]
    if group == "Z" or character in WHITE_SPACE:
        return "space"
    alone = group == "P" or (group == "S" and character < "\x7f")
    if alone or any(low <= ord(character) <= high for low, high in CHINESE):
        return "alone"
    return "word"
