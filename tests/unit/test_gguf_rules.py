"""What a GGUF file may say: tensors and hyperparameters that an engine survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmcore.model_file import check_model_file

from .fuzz_model_file import (
    TOKENS,
    array,
    scalar,
    string,
)
from .test_model_file import _path, changed, reason, with_tensor  # noqa: F401


class TestTensors:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"name": b"output.weight"}, "'output.weight' occurs twice"),
            ({"name": b"x" * 64}, "a string of 64 bytes"),
            ({"name": b"\xff"}, "not UTF-8"),
            ({"shape": (1, 1, 1, 1, 1)}, "5 dimensions"),
            ({"shape": (0, 4)}, "the impossible shape (0, 4)"),
            ({"shape": (2**63, 4)}, "the impossible shape"),
            ({"shape": (2**62, 4)}, "too many elements"),
            ({"shape": (2**32, 2**16, 2**16, 1)}, "too many elements"),
            ({"shape": (2**40,)}, "truncated"),
            ({"kind": 4}, "the unknown type 4"),
            ({"kind": 2**32 - 1}, "the unknown type"),
            ({"shape": (33, 2), "kind": 2}, "no multiple of 32 (Q4_0)"),
            ({"shape": (), "kind": 2}, "no multiple of 32 (Q4_0)"),
            ({"offset": 1}, "is not aligned"),
            ({"offset": 32}, "overlaps another one"),
            ({"offset": 2**64 - 32}, "truncated"),
        ],
    )
    def test_damaged(self, path: Path, fields: dict[str, Any], expected: str) -> None:
        """A tensor must have a name, a shape, a type, and a place of its own."""
        assert expected in reason(path, with_tensor(0, **fields))

    @pytest.mark.parametrize("kind", [9, 15, 24, 25, 26])
    def test_no_weight(self, path: Path, kind: int) -> None:
        """A type that no engine can multiply by is refused."""
        image = with_tensor(0, kind=kind, shape=(256, 4))
        assert "not a weight" in reason(path, image)

    def test_vector(self, path: Path) -> None:
        """A vector of another type than F32 is refused."""
        assert "must be of type F32" in reason(path, with_tensor(2, kind=26))


class TestMeaning:
    @pytest.mark.parametrize(
        "value", [None, string(b""), string(b"a b"), scalar("u32", 1)]
    )
    def test_architecture(self, path: Path, value: bytes | None) -> None:
        """A file must say what its architecture is."""
        found = reason(path, changed(general__architecture=value))
        assert "general.architecture is missing" in found

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("scores", array("f32", [0.0] * 10), "scores has 10 elements, not"),
            ("token_type", array("i32", [1] * 10), "token_type has 10 elements, not"),
            ("scores", array("u8", [0] * len(TOKENS)), "must be an array of f32"),
            ("token_type", array("i8", [1] * len(TOKENS)), "must be an array of i32"),
            ("token_type", scalar("i32", 1), "must be an array of i32"),
            ("tokens", array("u32", [1, 2]), "must be an array of string"),
            ("tokens", string(b"x"), "must be an array of string"),
            ("merges", array("f32", [1.0]), "must be an array of string"),
            ("precompiled_charsmap", array("u32", [1]), "must be an array of i8"),
            ("tokens", array("string", [*TOKENS[:-1], b"<s>"]), "the same token twice"),
            (
                "tokens",
                array("string", [*TOKENS[:-1], b"<s>\0a"]),
                "the same token twice",
            ),
            (
                "tokens",
                array("string", [*TOKENS[:-2], b"", b"[EMPTY_284]"]),
                "same token",
            ),
            ("tokens", array("string", [*TOKENS[:5], b"yy", *TOKENS[6:]]), "each byte"),
            ("bos_token_id", scalar("u32", len(TOKENS)), "must be between 0 and 285"),
            ("eos_token_id", scalar("i32", -1), "must be between 0 and 285"),
            ("eos_token_id", string(b"2"), "must be an integer"),
            ("model", string(b"none"), "it has no vocabulary"),
            ("model", string(b"no_vocab"), "it has no vocabulary"),
            ("model", string(b"bert"), "a bert vocabulary cannot have byte tokens"),
            ("model", string(b"rwkv"), "has not a token for each byte"),
        ],
    )
    def test_vocabulary(
        self, path: Path, key: str, value: bytes, expected: str
    ) -> None:
        """What an engine indexes the vocabulary by must fit it."""
        assert expected in reason(path, changed(**{f"tokenizer.ggml.{key}": value}))

    def test_rwkv_vocabulary(self, path: Path) -> None:
        """An escaped vocabulary with all single bytes is accepted."""
        escaped = {9: b"\\t", 10: b"\\n", 13: b"\\r", 92: b"\\\\"}
        single = [
            escaped.get(n) or (bytes([n]) if 31 < n < 127 else b"\\x%02x" % n)
            for n in range(256)
        ]
        tokens = [b"<s>", *single, *(b"word%d" % n for n in range(29))]
        values = {"tokens": array("string", tokens), "model": string(b"rwkv")}
        image = changed(
            **{f"tokenizer.ggml.{key}": value for key, value in values.items()}
        )
        path.write_bytes(bytes(image))
        assert check_model_file(path) is not None

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"block_count": scalar("u32", 0)}, "block_count is 0"),
            ({"block_count": scalar("u32", 513)}, "must be between 1 and 512"),
            ({"block_count": scalar("f32", 2.0)}, "must be an integer, not f32"),
            ({"block_count": scalar("bool", True)}, "must be an integer, not bool"),
            ({"embedding_length": scalar("u32", 0)}, "embedding_length is 0"),
            ({"attention.head_count": scalar("u32", 0)}, "does not fit 0 heads"),
            ({"attention.head_count": scalar("u32", 5)}, "does not fit"),
            ({"attention.head_count_kv": scalar("u32", 3)}, "does not fit"),
            ({"attention.head_count_kv": array("u32", [2, 512])}, "does not fit"),
            ({"attention.head_count_kv": array("u32", [2, 1])}, "does not fit"),
            ({"attention.head_count_kv": array("u32", [2, 0])}, "does not fit"),
            ({"nextn_predict_layers": scalar("u32", 3)}, "must be between 0 and 2"),
            ({"expert_count": scalar("u32", 513)}, "must be between 0 and 512"),
            ({"expert_count": scalar("u32", 8)}, "must be above 0 for 8 experts"),
            ({"expert_used_count": scalar("u32", 1)}, "must be at most 0"),
            ({"expert_group_count": scalar("u32", 2)}, "must be between 0 and 0"),
            ({"rope.scaling.type": string(b"magic")}, "is none of none, linear"),
            (
                {"attention.layer_norm_rms_epsilon": scalar("f32", float("nan"))},
                "must be a number of 0 or more",
            ),
        ],
    )
    def test_numbers(self, path: Path, values: dict[str, bytes], expected: str) -> None:
        """What an engine divides or asserts by is checked."""
        image = changed(**{f"llama.{key}": value for key, value in values.items()})
        assert expected in reason(path, image)

    def test_expert_groups(self, path: Path) -> None:
        """Experts must divide into their groups."""
        counts = {"expert_count": 8, "expert_used_count": 2, "expert_group_count": 3}
        counts["expert_group_used_count"] = 1
        image = changed(**{f"llama.{k}": scalar("u32", n) for k, n in counts.items()})
        assert "8 experts do not divide by 3 groups" in reason(path, image)
