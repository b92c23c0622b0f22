"""What all tokenizers do, and the merging that two of them share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import ClassVar

from gguf import TokenType

from llmcore.backends.reference.gguf_file import Settings
from llmcore.backends.reference.tokenizers.vocabulary import HIDDEN, Vocabulary


class Tokenizer(abc.ABC):
    """
    Text to tokens exactly as llama.cpp does it, and back. Any thread.

    Args:
        starts: Whether a prompt has a begin token if the file does not say.

    Attributes:
        vocabulary: All tokens.

        add_bos: Whether a prompt starts with the token of that role.
    """

    defaults: ClassVar[Mapping[str, int]] = {}
    """Tokens of a role that the file does not give."""

    def __init__(self, settings: Settings, *, starts: bool = True) -> None:
        self.vocabulary = Vocabulary.read(settings, self.defaults)
        self.add_bos = settings.flag("tokenizer.ggml.add_bos_token", starts)
        # Longer ones are looked for first. Control tokens are not looked for at all.
        defined = self.vocabulary.of_kind(TokenType.USER_DEFINED)
        self._defined = sorted(defined.items(), key=lambda pair: -len(pair[0].encode()))

    def tokenize(self, text: str) -> list[int]:
        """Tokens that users defined are found first; the rest is up to the kind."""
        parts: list[str | int] = [text] if text else []
        for defined, number in self._defined:
            if defined in text:
                parts = list(_split(parts, defined, number))
        tokens = list[int]()
        for part in parts:
            tokens += [part] if isinstance(part, int) else self.encode(part)
        return tokens

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of text that is not empty and has no defined tokens in it."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""
        text, kind = self.vocabulary.texts[token], self.vocabulary.kinds[token]
        if kind in HIDDEN:
            return b""
        if kind == TokenType.USER_DEFINED:
            return text.encode()
        if kind == TokenType.BYTE:
            return bytes([int(text[3:5], 16)])
        return self.decode(text)

    @abc.abstractmethod
    def decode(self, text: str) -> bytes:
        """What the text of a normal token stands for."""


def _split(parts: list[str | int], text: str, number: int) -> Iterator[str | int]:
    """The parts with each occurrence of a text replaced by its number."""
    for part in parts:
        if isinstance(part, int):
            yield part
            continue
        first, *others = part.split(text)
        if first:
            yield first
        for other in others:
            yield number
            if other:
                yield other


def merge(
    text: Sequence[str], rank: Callable[[str, str], float | None]
) -> Iterator[str]:
    """
    Join neighbours again and again: the lowest rank first, of equals the leftmost.

    Args:
        text: Symbols to begin with.

        rank: Of two neighbours; None if they cannot be joined.
    """
    symbols = list(text)
    count = len(symbols)
    before, after = list(range(-1, count - 1)), list(range(1, count + 1))
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left < 0 or right >= count:
            return
        found = rank(symbols[left], symbols[right])
        if found is not None:
            heappush(queue, (found, left, right, symbols[left] + symbols[right]))

    for right in range(1, count):
        offer(right - 1, right)
    while queue:
        _, left, right, joined = heappop(queue)
        if not symbols[right] or symbols[left] + symbols[right] != joined:
            continue  # one of them was joined to another meanwhile
        symbols[left], symbols[right] = joined, ""
        after[left] = after[right]
        if after[left] < count:
            before[after[left]] = left
        offer(before[left], left)
        offer(left, after[left])
    return filter(None, symbols)
