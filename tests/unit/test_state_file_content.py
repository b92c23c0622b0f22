"""Tests of saved state with wrong content under right checksums."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcore.state_file.layout import pack

from .fuzz_state_file import parts, reason, sealed, tiny_state

HEADER, CHAT, TOKENS, PAYLOAD = parts(b"".join(pack(tiny_state())))


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "saved.state"


def replaced(old: bytes, new: bytes) -> bytes:
    """The header with something else in it."""
    assert old in HEADER
    return HEADER.replace(old, new, 1)


class TestContent:
    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"\xff\xfe{}",
            b"\xef\xbb\xbf" + HEADER,
            HEADER + b"{}",
            replaced(b'"null"', b"null"),
            replaced(b'"null"', b"1"),
            replaced(b":64", b":64.0"),
            replaced(b":64", b":true"),
            replaced(b":64", b":-1"),
            replaced(b":64", b':"64"'),
            replaced(b":64", b":NaN"),
            replaced(b":64", b":Infinity"),
            replaced(b":64", b":1e999"),
            replaced(b":64", b":" + b"9" * 5000),
            replaced(b'"chat"', b'"other"'),
            replaced(b'"chat"', b'"sequence"'),
            replaced(b'{"', b'{"more":0,"'),
            replaced(b'{"', b'{"kind":"chat","'),
            replaced(b'"build":"null 1.0",', b""),
            replaced(b"null 1.0", b"x" * 5000),
            replaced(b"null 1.0", b"\\ud800"),
            replaced(b'"null 1.0"', b"[" * 100_000),
        ],
        ids=lambda head: ascii(head[:60]),
    )
    def test_header(self, path: Path, head: bytes) -> None:
        """A header that no llmcore writes is refused, also if the checksum is right."""
        content = sealed(head, CHAT, TOKENS, PAYLOAD)

        assert reason(path, content).startswith("is damaged: ")

    @pytest.mark.parametrize(
        "chat",
        [
            b"",
            b"null",
            b"[]",
            b'[["history",1]]',
            b"{",
            b'{"a":NaN}',
            b'{"a":-Infinity}',
            b'{"a":1e999}',
            b'{"a":1,"a":1}',
            b'{"a":{"b":1,"b":2}}',
            b'{"a":' + b"[" * 100_000,
            b'{"a":"\xff"}',
        ],
        ids=lambda chat: ascii(chat[:20]),
    )
    def test_chat(self, path: Path, chat: bytes) -> None:
        """A chat section that is not strict JSON is refused."""
        content = sealed(HEADER, chat, TOKENS, PAYLOAD)

        assert reason(path, content).startswith("is damaged: ")

    @pytest.mark.parametrize(
        "tokens",
        [b"\1\0\0", b"\xe8\3\0\0", b"\xff\xff\xff\xff"],
        ids=["torn", "beyond", "negative"],
    )
    def test_tokens(self, path: Path, tokens: bytes) -> None:
        """A token that no engine may see is refused."""
        content = sealed(HEADER, CHAT, tokens, PAYLOAD)

        assert reason(path, content).startswith("is damaged: ")
