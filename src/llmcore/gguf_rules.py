"""
What an engine indexes, divides or asserts by, checked before it does.

Each rule here stands for a way in which a damaged GGUF file that parses well kills
the process: found by loading damaged files in an engine. Whatever an engine refuses
with an error of its own is left to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from llmcore.gguf_header import GGUFTensor, InvalidFileError, Value, Values

__all__ = ["check_model", "integer"]

_MAX_LAYERS = 512
_MAX_EXPERTS = 512
_NO_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
"""Types that no engine can multiply by."""

_BYTE_TOKEN = 6
_BYTES = {bytes([byte]) for byte in range(256)}
_ROPE_SCALINGS = (b"none", b"linear", b"yarn", b"longrope")
_TOKENIZER = "tokenizer.ggml."

_ARRAY_TYPES = {
    f"{_TOKENIZER}tokens": ("string",),
    f"{_TOKENIZER}merges": ("string",),
    f"{_TOKENIZER}scores": ("f32",),
    f"{_TOKENIZER}token_type": ("i32", "u32"),
    f"{_TOKENIZER}precompiled_charsmap": ("i8", "u8"),
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
    _check_settings(values, architecture)
    _check_weights(tensors)
    _check_heads(values, architecture, tensors)
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
    tokens = _array(values, f"{_TOKENIZER}tokens")
    types = _array(values, f"{_TOKENIZER}token_type")
    for key in (f"{_TOKENIZER}scores", f"{_TOKENIZER}token_type"):
        count = len(_array(values, key))
        if key in values and count != len(tokens):
            raise InvalidFileError(f"{key} has {count} elements, not {len(tokens)}")
    if len(set(_names(tokens))) != len(tokens):
        raise InvalidFileError(f"{_TOKENIZER}tokens has the same token twice")
    for key in values:
        if re.fullmatch(r"tokenizer\.ggml\.\w+_token_id", key):
            integer(values, key, 0, max(len(tokens), 1) - 1)
    _check_bytes(values, {t for t in tokens if isinstance(t, bytes)}, types)


def _names(tokens: tuple[object, ...]) -> Iterator[bytes]:
    """The tokens as an engine tells them apart: up to a NUL, and none empty."""
    for number, token in enumerate(tokens):
        name = token.partition(b"\0")[0] if isinstance(token, bytes) else b""
        yield name or b"[EMPTY_%d]" % number


def _check_bytes(values: Values, tokens: set[bytes], types: tuple[object, ...]) -> None:
    """Check that the tokenizer can turn every byte into tokens."""
    match _array(values, f"{_TOKENIZER}model"):
        case (b"none" | b"no_vocab",):
            raise InvalidFileError("it has no vocabulary: not a model for text")
        case (b"llama",) if any(
            b"<0x%02X>" % byte not in tokens and bytes([byte]) not in tokens
            for byte in range(256)
        ):
            raise InvalidFileError("its vocabulary has not a token for each byte")
        case (b"rwkv",) if not set(map(_unescaped, tokens)) >= _BYTES:
            raise InvalidFileError("its vocabulary has not a token for each byte")
        case (b"bert",) if _BYTE_TOKEN in types:
            raise InvalidFileError("a bert vocabulary cannot have byte tokens")


def _unescaped(token: bytes) -> bytes:
    """A token of an rwkv vocabulary without its escapes."""
    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _unescape, token, flags=re.DOTALL)


def _unescape(match: re.Match[bytes]) -> bytes:
    if len(match[1]) == 3:
        return bytes.fromhex(match[1][1:].decode())
    return {b"t": b"\t", b"n": b"\n", b"r": b"\r"}.get(match[1], match[1])


def _check_numbers(values: Values, architecture: str) -> None:
    def number(name: str, low: int, high: int) -> int:
        return integer(values, f"{architecture}.{name}", low, high) or 0

    layers = number("block_count", 1, _MAX_LAYERS)
    number("embedding_length", 1, 2**20)
    number("nextn_predict_layers", 0, layers)
    experts = number("expert_count", 0, _MAX_EXPERTS)
    groups = number("expert_group_count", 0, max(experts - 1, 0))
    if groups > 1:
        number("expert_group_used_count", 1, groups - 1)
        if experts % groups:
            raise InvalidFileError(
                f"{experts} experts do not divide by {groups} groups"
            )
    key = f"{architecture}.expert_used_count"
    used = _array(values, key)
    if not all(isinstance(n, int) and 0 <= n <= experts for n in used):
        raise InvalidFileError(f"{key} must be at most {experts}, the expert count")
    if experts and not any(used):
        raise InvalidFileError(f"{key} must be above 0 for {experts} experts")


def _check_settings(values: Values, architecture: str) -> None:
    for key, value in values.items():
        if key.endswith("_epsilon") and not (
            isinstance(value.value, float) and 0 <= value.value < math.inf
        ):
            raise InvalidFileError(f"{key} must be a number of 0 or more")
    key = f"{architecture}.rope.scaling.type"
    if key in values and values[key].value not in _ROPE_SCALINGS:
        raise InvalidFileError(
            f"{key} is none of {b', '.join(_ROPE_SCALINGS).decode()}"
        )


def _check_heads(
    values: Values, architecture: str, tensors: Iterable[GGUFTensor]
) -> None:
    """Check that the attention weights divide into their heads, layer by layer."""

    def numbers(name: str) -> tuple[object, ...]:
        return _array(values, f"{architecture}.{name}")

    heads = numbers("attention.head_count")
    counts = {"q": heads, "k": numbers("attention.head_count_kv") or heads}
    sizes = numbers("attention.key_length") + numbers("attention.key_length_swa")
    for tensor in tensors:
        found = re.fullmatch(r"blk\.(\d{1,3})\.attn_([qk])\.weight", tensor.name)
        if found is None or len(tensor.shape) != 2 or not counts[found[2]]:
            continue
        of_layers = counts[found[2]]
        count = of_layers[min(int(found[1]), len(of_layers) - 1)]
        if not isinstance(count, int) or count < 1 or tensor.shape[1] % count:
            raise InvalidFileError(f"{tensor.name!r} does not fit {count!r} heads")
        if found[2] == "q":
            sizes = sizes or (tensor.shape[1] // count,)
        elif len(of_layers) > 1 and sizes and tensor.shape[1] // count not in sizes:
            raise InvalidFileError(f"{tensor.name!r} does not fit {count} heads")


def _check_weights(tensors: Iterable[GGUFTensor]) -> None:
    for tensor in tensors:
        if len(tensor.shape) < 2 and tensor.type != "F32":
            raise InvalidFileError(f"the vector {tensor.name!r} must be of type F32")
        if tensor.type in _NO_WEIGHTS:
            raise InvalidFileError(
                f"the tensor {tensor.name!r} is of type {tensor.type}: not a weight"
            )
