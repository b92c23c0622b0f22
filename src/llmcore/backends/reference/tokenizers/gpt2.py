"""Byte-level BPE, as the vocabularies of GPT-2, SmolLM2 and Llama 3 have it."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from typing import ClassVar, NamedTuple

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings
from llmcore.backends.reference.tokenizers.tokenizer import Tokenizer, merge

GPT2 = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+"
    r"|[\s]+(?![^\s])|[\s]+"
)
LLAMA3 = (
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}]+"
    r"|[\p{N}]{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|[\s]*[\r\n]+|[\s]+(?![^\s])|[\s]+"
)


class Splitting(NamedTuple):
    """How text is cut into words, each pattern cutting what the one before left."""

    patterns: tuple[str, ...]
    starts: bool = False
    whole_words: bool = False
    """A word that is a token is taken as it is."""


SPLITTINGS = {
    "gpt-2": Splitting((GPT2,)),
    "smollm": Splitting((r"[\p{N}]", GPT2)),
    "llama-bpe": Splitting((LLAMA3,), starts=True, whole_words=True),
}
"""By the name of the pre-tokenizer in the file."""


class ByteLevel(Tokenizer):
    """
    Joins bytes in the order in which training joined them (Sennrich et al. 2016,
    arXiv:1508.07909; over bytes as in GPT-2).
    """

    defaults: ClassVar = {"bos": 11, "eos": 11}

    def __init__(self, settings: Settings) -> None:
        name = settings.text("tokenizer.ggml.pre", "gpt-2")
        if name not in SPLITTINGS:
            raise InvalidModelError(
                f"its pre-tokenizer {name!r} is not known here, only "
                f"{', '.join(SPLITTINGS)}"
            )
        self._splitting = SPLITTINGS[name]
        super().__init__(settings, starts=self._splitting.starts)
        self._ranks = dict[tuple[str, str], int]()
        for rank, pair in enumerate(self.vocabulary.merges):
            left, _, right = pair.partition(" ")
            self._ranks.setdefault((left, right), rank)
        self._to_character = byte_characters()
        self._to_byte = {character: b for b, character in enumerate(byte_characters())}

    def encode(self, text: str) -> list[int]:
        """Cut into words, then join the bytes of each."""
        words = [text]
        for pattern in self._splitting.patterns:
            words = [part for word in words for part in cut(pattern, word)]
        return [token for word in words for token in self._tokens(word)]

    def _tokens(self, word: str) -> list[int]:
        numbers = self.vocabulary.numbers
        symbols = "".join(self._to_character[byte] for byte in word.encode())
        if self._splitting.whole_words and symbols in numbers:
            return [numbers[symbols]]
        tokens = list[int]()
        for symbol in merge(
            symbols, lambda left, right: self._ranks.get((left, right))
        ):
            parts = (symbol,) if symbol in numbers else symbol
            tokens += [numbers[part] for part in parts if part in numbers]
        return tokens

    def decode(self, text: str) -> bytes:
        """The bytes that the characters stand for; others stand for themselves."""
        return b"".join(
            bytes([self._to_byte[c]]) if c in self._to_byte else c.encode()
            for c in text
        )


@cache
def byte_characters() -> tuple[str, ...]:
    """A visible character for each byte; itself if it is one."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return tuple(chr(b if b in visible else next(hidden)) for b in range(0x100))


def cut(pattern: str, text: str) -> list[str]:
    """All matches of a pattern, and what lies between them."""
    parts, end = list[str](), 0
    for match in _compiled(pattern).finditer(text):
        parts += [text[end : match.start()], match.group()]
        end = match.end()
    return [part for part in (*parts, text[end:]) if part]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    r"""A pattern with ``\p{L}``, ``\p{N}`` and ``\s`` inside of brackets."""
    pattern = pattern.replace(r"\s", WHITE_SPACE)
    for category in ("L", "N"):
        pattern = pattern.replace(rf"\p{{{category}}}", characters(category))
    return re.compile(pattern)


WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""The Unicode property; the module `re` would add four control characters."""


@cache
def characters(category: str) -> str:
    """All characters of a Unicode category as ranges for a regular expression."""
    ranges, start = list[str](), -1
    for code in range(sys.maxunicode + 2):
        inside = (
            code <= sys.maxunicode and unicodedata.category(chr(code))[0] == category
        )
        if inside and start < 0:
            start = code
        elif not inside and start >= 0:
            ranges.append(f"{re.escape(chr(start))}-{re.escape(chr(code - 1))}")
            start = -1
    return "".join(ranges)
