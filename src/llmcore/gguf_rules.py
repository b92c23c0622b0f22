"""
What an engine indexes, divides or asserts by, checked before it does.

Each rule here stands for a way in which a damaged GGUF file that parses well kills
the process: found by loading damaged files in an engine. Whatever an engine refuses
with an error of its own is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmcore.gguf_header import GGUFTensor, InvalidFileError, Value, Values

__all__ = ["check_model", "integer"]

_MAX_LAYERS = 512
_MAX_EXPERTS = 512
_NO_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
"""Types that no engine can multiply by."""

_ARRAY_TYPES = {
    "tokenizer.ggml.tokens": ("string",),
    "tokenizer.ggml.merges": ("string",),
    "tokenizer.ggml.scores": ("f32",),
    "tokenizer.ggml.token_type": ("i32", "u32"),
    "tokenizer.ggml.precompiled_charsmap": ("i8", "u8"),
}
"""Arrays that an engine reads through a pointer whose type it does not check."""


def check_model(values: Values, tensors: Iterable[GGUFTensor]) -> str:
    """
    Check what an engine trusts in the metadata and tensors of a whole model.

    Returns:
        The architecture.

    Raises:
        InvalidFileError: With the reason in words.
    """
    found = values.get("general.architecture", Value("nothing", 0)).value
    if not isinstance(found, bytes) or not re.fullmatch(rb"[\w.-]{1,64}", found):
        raise InvalidFileError("general.architecture is missing or is no name")
    architecture = found.decode()
    _check_arrays(values)
    _check_vocabulary(values)
    _check_numbers(values, architecture)
    _check_weights(tensors)
    return architecture


def integer(values: Values, key: str, low: int, high: int) -> int | None:
    """A number of that range; None if the key is missing."""
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value.value, int) or isinstance(value.value, bool):
        raise InvalidFileError(f"{key} must be an integer, not {value.type}")
    if not low <= value.value <= high:
        raise InvalidFileError(
            f"{key} is {value.value}, must be between {low} and {high}"
        )
    return value.value


def _check_arrays(values: Values) -> None:
    for key, types in _ARRAY_TYPES.items():
        value = values.get(key)
        if value is not None and not (value.is_array and value.type in types):
            raise InvalidFileError(
                f"{key} must be an array of {types[0]}, not {value.type}"
            )


def _array(values: Values, key: str) -> tuple[object, ...]:
    value = values[key].value if key in values else ()
    return value if isinstance(value, tuple) else (value,)


def _check_vocabulary(values: Values) -> None:
    kind = _array(values, "tokenizer.ggml.model")
    if kind in ((b"none",), (b"no_vocab",)):
        raise InvalidFileError("it has no vocabulary: not a language model for text")
    tokens = _array(values, "tokenizer.ggml.tokens")
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        count = len(_array(values, key))
        if key in values and count != len(tokens):
            raise InvalidFileError(f"{key} has {count} elements, not {len(tokens)}")
    if len(set(tokens)) != len(tokens):
        raise InvalidFileError("tokenizer.ggml.tokens has the same token twice")
    for key in values:
        if re.fullmatch(r"tokenizer\.ggml\.\w+_token_id", key):
            integer(values, key, 0, max(len(tokens), 1) - 1)


def _check_numbers(values: Values, architecture: str) -> None:
    def number(name: str, low: int, high: int) -> int | None:
        return integer(values, f"{architecture}.{name}", low, high)

    number("block_count", 1, _MAX_LAYERS)
    number("embedding_length", 1, 2**20)
    experts = number("expert_count", 0, _MAX_EXPERTS) or 0
    number("expert_used_count", 0, experts)


def _check_weights(tensors: Iterable[GGUFTensor]) -> None:
    for tensor in tensors:
        if len(tensor.shape) < 2 and tensor.type != "F32":
            raise InvalidFileError(f"the vector {tensor.name!r} must be of type F32")
        if tensor.type in _NO_WEIGHTS:
            raise InvalidFileError(
                f"the tensor {tensor.name!r} is of type {tensor.type}: not a weight"
            )
