"""Text to tokens: by the library where that is safe, else as it would do it."""

from __future__ import annotations

import re

from llmcore.backends.ctransformers.model_file import Vocabulary
from llmcore.backends.ctransformers.native import Handle

NOT_TEXT = re.compile("([\0\udc80-\udcff])")
"""NUL, where the library would end, and bytes outside of UTF-8, where it aborts."""

WORD = re.compile(
    rb"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
)
"""How GPT-2 splits text, for ASCII, as ``models/common.h`` has it."""


class NativeTokenizer:
    """The SentencePiece tokenizer of the library, for any bytes."""

    def __init__(self, handle: Handle, vocabulary: Vocabulary) -> None:
        self._handle = handle
        self._vocabulary = vocabulary
        guard = vocabulary.separator
        self._guarded = 0 if guard is None else len(handle.tokenize(guard))

    def __call__(self, text: bytes) -> list[int]:
        """
        The tokens of plain text.

        A NUL or a byte outside of UTF-8 becomes the token of that byte.
        """
        parts = NOT_TEXT.split(text.decode("utf-8", "surrogateescape"))
        tokens = []
        for number, part in enumerate(parts):
            raw = part.encode("utf-8", "surrogateescape")
            if number % 2:
                byte = self._vocabulary.byte_tokens.get(raw[0])
                tokens += [] if byte is None else [byte]
            elif raw:
                bare = number > 0 or not self._vocabulary.space_first
                tokens += self._plain(raw, bare=bare)
        return tokens

    def _plain(self, text: bytes, *, bare: bool) -> list[int]:
        """Of text with nothing odd in it; ``bare`` if no space may come before it."""
        tokens = self._native(text, bare=bare)
        pieces = self._vocabulary.pieces
        if b"".join(pieces[token] for token in tokens).endswith(text):
            return tokens
        if len(characters := text.decode()) == 1:
            return [self._vocabulary.byte_tokens[byte] for byte in text]
        # It took some of it for a control token, or one that means something else.
        middle = len(characters) // 2
        first, second = characters[:middle].encode(), characters[middle:].encode()
        return self._plain(first, bare=bare) + self._plain(second, bare=True)

    def _native(self, text: bytes, *, bare: bool) -> list[int]:
        guard = self._vocabulary.separator
        if guard is None or not bare:
            return self._handle.tokenize(text)
        # It puts a space before each text; what keeps that apart is taken off again.
        return self._handle.tokenize(guard + text)[self._guarded :]


class GreedyTokenizer:
    """
    The longest tokens that words begin with, as the library does for GPT models.

    Its own would take text for control tokens, write to stderr and overflow its stack
    on a long word.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        pieces = vocabulary.pieces
        self._numbers = {piece: n for n, piece in enumerate(pieces) if piece}
        self._longest = max(map(len, self._numbers), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of plain text; a byte that no token begins with is left out."""
        tokens = []
        for word in WORD.findall(text):
            start = 0
            while start < len(word):
                for end in range(min(len(word), start + self._longest), start, -1):
                    token = self._numbers.get(word[start:end])
                    if token is not None:
                        tokens.append(token)
                        break
                else:
                    end = start + 1
                start = end
        return tokens
