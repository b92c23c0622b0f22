"""Tests of the content of saved state: what is written, read and refused."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from llmcore.errors import StateError
from llmcore.state_file import (
    FORMAT,
    SavedState,
    StateHeader,
    read,
    write,
)
from llmcore.state_file.layout import InvalidFileError, pack, unpack
from llmcore.values import CacheKind

from .fuzz_state_file import (
    DIGEST,
    MAGIC,
    START,
    header,
    mutations,
    outcome,
    parts,
    reason,
    sealed,
    tiny_state,
)

WHOLE = b"".join(pack(tiny_state()))
HEADER, CHAT, TOKENS, PAYLOAD = parts(WHOLE)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "saved.state"


# -- whole files ---------------------------------------------------------------------

TEXT_FIELDS = ("backend", "build", "model", "cache_kind", "kv_type_k", "kv_type_v")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
chats = st.dictionaries(
    texts,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts,
        lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
        max_leaves=8,
    ),
)


@st.composite
def states(draw: st.DrawFn) -> SavedState:
    """Any state that can be."""
    chat = draw(st.none() | chats)
    vocab_size = draw(st.integers(1, 2**31 - 1))
    return SavedState(
        header=StateHeader(
            kind="sequence" if chat is None else "chat",
            context_size=draw(st.integers(0, 2**31 - 1)),
            vocab_size=vocab_size,
            **{name: draw(texts) for name in TEXT_FIELDS},
        ),
        tokens=draw(st.lists(st.integers(0, vocab_size - 1))),
        payload=draw(st.binary()),
        chat=chat,
    )


class TestRoundTrip:
    @given(state=states())
    def test_any(
        self, state: SavedState, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """What is read is what was written."""
        path = tmp_path_factory.getbasetemp() / "round-trip.state"

        write(path, state)

        assert state == read(path)

    def test_chat_of_tuples(self, path: Path) -> None:
        """A chat section is turned into plain JSON at once, not only by the file."""
        state = evolve(tiny_state(), chat={"history": (("user", "hi"),)})

        write(path, state)

        assert {"history": [["user", "hi"]]} == state.chat == read(path).chat

    def test_caller_changes_chat(self) -> None:
        """A state has a copy of the chat section."""
        chat: dict[str, Any] = {"history": []}
        state = evolve(tiny_state(), chat=chat)

        chat["history"].append("more")

        assert {"history": []} == state.chat

    def test_token_log_only(self, path: Path) -> None:
        """A state may hold nothing but tokens."""
        state = SavedState(header=header(), tokens=(5, 6))

        write(path, state)

        assert ((5, 6), b"", None) == (
            read(path).tokens,
            read(path).payload,
            read(path).chat,
        )

    def test_enum(self, path: Path) -> None:
        """A member of an enumeration is kept as its text."""
        state = SavedState(header=header(cache_kind=CacheKind.HYBRID), tokens=())

        write(path, state)

        assert "'hybrid'" == repr(read(path).header.cache_kind)
        assert "'hybrid'" == repr(state.header.cache_kind)

    def test_layout(self) -> None:
        """The bytes of format 1 are fixed for ever."""
        state = SavedState(
            header=header(llmcore="0.1"), tokens=(1, 258), payload=b"state"
        )
        head = (
            b'{"kind":"sequence","backend":"null","build":"null 1.0",'
            b'"model":"0123abcd","cache_kind":"full","kv_type_k":"f16",'
            b'"kv_type_v":"q8_0","context_size":64,"vocab_size":1000,'
            b'"llmcore":"0.1"}'
        )

        expected = sealed(head, b"", b"\1\0\0\0\2\1\0\0", b"state")

        assert expected == b"".join(pack(state))

    def test_repr(self) -> None:
        """The repr is short and tells nothing that was said."""
        shown = repr(tiny_state())

        assert "<3 tokens>" in shown
        assert "<7 bytes>" in shown
        assert "hé" not in shown


class TestValues:
    @pytest.mark.parametrize("token", [-1, 1000, 2**40, True, 1.0, "1", None], ids=repr)
    def test_tokens(self, token: Any) -> None:
        """A token outside the vocabulary, or that is no integer, is refused."""
        with pytest.raises(ValueError, match="tokens must be whole numbers from 0"):
            SavedState(header=header(), tokens=(1, token))

    @pytest.mark.parametrize(
        "chat",
        [{"a": float("nan")}, {"a": float("inf")}, {"a": b"bytes"}, {1: 0, "1": 0}],
        ids=repr,
    )
    def test_chat(self, chat: Any) -> None:
        """A chat section that is not plain JSON is refused before any file is made."""
        with pytest.raises(ValueError, match="chat must be a JSON object"):
            SavedState(header=header(kind="chat"), tokens=(), chat=chat)

    def test_circular_chat(self) -> None:
        """A chat section that contains itself is refused."""
        chat: dict[str, Any] = {}
        chat["self"] = chat

        with pytest.raises(ValueError, match="chat must be a JSON object"):
            SavedState(header=header(kind="chat"), tokens=(), chat=chat)

    @pytest.mark.parametrize(("kind", "chat"), [("chat", None), ("sequence", {})])
    def test_kind(self, kind: str, chat: dict[str, Any] | None) -> None:
        """Exactly a state of kind "chat" has a chat section."""
        with pytest.raises(ValueError, match="chat does not suit kind"):
            SavedState(header=header(kind=kind), tokens=(), chat=chat)

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "other"},
            {"backend": 1},
            {"model": None},
            {"build": "x" * 5000},
            {"build": "\ud800"},
            {"context_size": -1},
            {"vocab_size": True},
            {"vocab_size": 2**31},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_header(self, fields: dict[str, Any]) -> None:
        """A header with a value of the wrong type or range cannot be made."""
        with pytest.raises((TypeError, ValueError)):
            header(**fields)


# -- damaged files -------------------------------------------------------------------


class TestDamage:
    def test_cut_anywhere(self, path: Path) -> None:
        """A file cut off at any byte is said to be cut off."""
        for size in range(1, len(WHOLE)):
            assert reason(path, WHOLE[:size]).startswith("is cut off: "), size

    def test_any_bit(self, path: Path) -> None:
        """Any one bit that flipped is noticed."""
        for bit in range(8 * len(WHOLE)):
            changed = bytearray(WHOLE)
            changed[bit // 8] ^= 1 << bit % 8
            found = "not a state file" if bit < 8 * len(MAGIC) else "is damaged: "
            assert found in reason(path, bytes(changed)), bit

    @pytest.mark.parametrize(
        "junk", [b"\0", b"\n", bytes(4096), WHOLE], ids=["nul", "line", "page", "whole"]
    )
    def test_followed(self, path: Path, junk: bytes) -> None:
        """A file that is followed by anything, even by itself, is damaged."""
        expected = f"is damaged: {len(junk)} bytes follow its end"

        assert expected == reason(path, WHOLE + junk)

    def test_empty(self, path: Path) -> None:
        """An empty file is said to be empty."""
        assert "is empty" == reason(path, b"")

    @pytest.mark.parametrize(
        "content",
        [
            b"GGUF\3\0\0\0",
            b"PK\3\4" + bytes(100),
            b"\x89PNG\r\n\x1a\n",
            b'{"kind": "sequence"}',
            b"\0" * 1000,
            b"LLMCORE-STATE\n",
            pickle.dumps(tiny_state()),
        ],
        ids=["gguf", "zip", "png", "json", "zeros", "text", "pickle"],
    )
    def test_other_file(self, path: Path, content: bytes) -> None:
        """A file of another kind is called that."""
        assert "is not a state file of llmcore" == reason(path, content)

    def test_shortened_while_read(self) -> None:
        """A file that another program shortens meanwhile is cut off, not believed."""
        with pytest.raises(InvalidFileError, match="is cut off"):
            unpack(io.BytesIO(WHOLE[:-40]), len(WHOLE))

    def test_newer_format(self, path: Path) -> None:
        """A file of a newer format says so, whatever follows its first bytes."""
        content = sealed(HEADER, version=FORMAT + 2)[: START + 10]
        expected = (
            "was written in format 3, this llmcore reads format 1: use a newer llmcore"
        )

        assert expected == reason(path, content)

    @pytest.mark.parametrize("index", range(4))
    @pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1])
    def test_huge_lengths(self, path: Path, index: int, length: int) -> None:
        """A length that the file is too short for takes no memory."""
        lengths = [0, 0, 0, 0]
        lengths[index] = length
        content = sealed(lengths=tuple(lengths))
        tracemalloc.start()
        try:
            found = reason(path, content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert found.startswith("is cut off: ")
        assert peak < 1 << 20

    @pytest.mark.parametrize(("index", "part"), [(0, "header"), (1, "chat")])
    def test_huge_part(self, path: Path, index: int, part: str) -> None:
        """A part that is really larger than it may be is not read."""
        size = (1 << 26) + 1
        lengths = [0, 0, 0, 0]
        lengths[index] = size
        start = sealed(b"", lengths=tuple(lengths))[:START]
        path.write_bytes(start)
        with path.open("r+b") as file:
            file.truncate(START + size + DIGEST)  # a hole, so it takes no disk
        expected = f"is damaged: its {part} part has {size} bytes"

        assert reason_of_file(path).endswith(expected)

    def test_fuzz(self, path: Path) -> None:
        """A damaged file is read only if its checksums were made right again."""
        read_from = {
            name
            for name, content in islice(mutations(seed=3), 1000)
            if outcome(path, content) == "read"
        }

        assert {"resealed", "other_json"} == read_from


def reason_of_file(path: Path) -> str:
    with pytest.raises(StateError) as caught:
        read(path)
    return str(caught.value)
