"""
The vocabulary of the null model: every byte, a few words, four control tokens.

Bytes are their own token numbers, so text in any language round-trips and a character
can be split over several tokens.
"""

from __future__ import annotations

import re

WORDS = (b" the", b" and", b" of", b" to", b" in", b"ing", b"er", "é".encode())
"""Pieces of several bytes, numbered from 256."""

CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
"""Control tokens, numbered after the words; they have no text."""

FIRST_CONTROL = 256 + len(WORDS)
SPECIAL_TOKENS = {text: FIRST_CONTROL + n for n, text in enumerate(CONTROL)}
BOS = SPECIAL_TOKENS["<s>"]
EOS = SPECIAL_TOKENS["</s>"]
END_OF_TURN = SPECIAL_TOKENS["<|im_end|>"]
VOCAB_SIZE = FIRST_CONTROL + len(CONTROL)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as most small instruction models use it."""

_PIECES = [bytes([n]) for n in range(256)] + list(WORDS)
_NUMBERS = {piece: n for n, piece in enumerate(_PIECES)}
_PATTERN = re.compile(b"|".join(map(re.escape, WORDS)) + b"|.", re.DOTALL)


def tokenize(text: bytes) -> list[int]:
    """Turn any bytes into tokens; never yields a control token."""
    return [_NUMBERS[piece] for piece in _PATTERN.findall(text)]


def piece(token: int) -> bytes:
    """The bytes of a token; ``b""`` for a control token."""
    return _PIECES[token] if 0 <= token < FIRST_CONTROL else b""
