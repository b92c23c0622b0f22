"""
Which GGUF files the library reads, and what they hold.

It knows the format as it was in September 2023: one kind of Llama, complete, and
nothing more. Each rule here stands for a wrong answer or the end of the process.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import frozen

from llmcore.backends.ctransformers.model_file import (
    ModelFile,
    Sizes,
    Vocabulary,
    check_heads,
)
from llmcore.backends.ctransformers.tensors import check_names
from llmcore.gguf_header import (
    GGUFTensor,
    InvalidFileError,
    Value,
    Values,
    parse_gguf,
)
from llmcore.values import ModelInfo

MOST_LAYERS = 100
"""More have more operations than the library has places for."""

UNKNOWN, CONTROL, UNUSED, BYTE = 2, 3, 5, 6
"""Token types of GGUF that are not just text."""

TENSOR_TYPES = (
    *("F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>")
"""Control tokens that end an answer, whatever the metadata say."""

TOKENIZER = "tokenizer.ggml."


def read(data: mmap.mmap, path: Path) -> ModelFile:
    """
    Check a GGUF file that is well formed already.

    Raises:
        InvalidFileError: With the reason in words.
    """
    header = parse_gguf(data)
    settings = _Settings(header.values)
    if (architecture := settings.text("general.architecture")) != "llama":
        raise InvalidFileError(
            f"ctransformers reads GGUF files of llama only, not of {architecture!r}: "
            "use the llama_cpp backend"
        )
    tokens = _tokens(settings)
    sizes = _sizes(settings, len(tokens))
    _check_tensors(header.tensors, sizes)
    return ModelFile(
        kind="gguf",
        info=_info(settings, tokens, sizes, header.tensors),
        sizes=sizes,
        vocabulary=_vocabulary(settings, tokens),
        own_tokenizer=True,
        mappable=True,
    )


@frozen
class _Settings:
    """Metadata by key and type; the library takes no other type for a known key."""

    values: Values

    def get(self, key: str, *types: str) -> Value | None:
        value = self.values.get(key)
        if value is not None and value.type not in types:
            raise InvalidFileError(
                f"{key} must be of type {types[0]}, not {value.type}"
            )
        return value

    def text(self, key: str) -> str:
        value = self.get(key, "string")
        raw = b"" if value is None else value.value
        return raw.decode(errors="replace") if isinstance(raw, bytes) else ""

    def number(self, key: str, *, default: int | None = None) -> int:
        value = self.get(key, "u32")
        number = default if value is None else value.value
        if not isinstance(number, int) or number < 1:
            raise InvalidFileError(f"{key} is missing or not a number above 0")
        return number

    def real(self, key: str, *, default: float | None = None) -> float:
        value = self.get(key, "f32")
        number = default if value is None else value.value
        if not isinstance(number, float) or not math.isfinite(number):
            raise InvalidFileError(f"{key} is missing or not a finite number")
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key, "bool")
        return default if value is None else bool(value.value)

    def array(self, key: str, *types: str) -> tuple[object, ...]:
        value = self.get(key, *types)
        if value is None or not isinstance(value.value, tuple):
            raise InvalidFileError(f"{key} is missing or not an array")
        return value.value

    def token(self, name: str, default: int | None = None) -> int | None:
        value = self.get(f"{TOKENIZER}{name}_token_id", "u32")
        number = default if value is None else value.value
        return number if isinstance(number, int) else None


# -- the network -------------------------------------------------------------------


def _sizes(settings: _Settings, vocabulary: int) -> Sizes:
    def number(name: str, default: int | None = None) -> int:
        return settings.number(f"llama.{name}", default=default)

    number("context_length")
    embedding, layers = number("embedding_length"), number("block_count")
    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise InvalidFileError(f"{heads} heads do not divide by {kv_heads}")
    check_heads(embedding, heads)
    if layers > MOST_LAYERS:
        raise InvalidFileError(
            f"it has {layers} layers and ctransformers computes {MOST_LAYERS} at most"
        )
    _check_rotation(settings, embedding // heads)
    settings.real("llama.attention.layer_norm_rms_epsilon")
    return Sizes(
        vocabulary=vocabulary,
        embedding=embedding,
        heads=heads,
        layers=layers,
        feed_forward=number("feed_forward_length"),
        keys=embedding // heads * kv_heads,
        cache_bytes=2,
    )


def _check_rotation(settings: _Settings, head: int) -> None:
    if settings.number("llama.rope.dimension_count", default=head) != head:
        raise InvalidFileError(
            f"llama.rope.dimension_count must be the size of a head, {head}"
        )
    settings.real("llama.rope.freq_base", default=1e4)
    settings.real("llama.rope.scale_linear", default=1.0)
    scaling = settings.text("llama.rope.scaling.type")
    if scaling not in ("", "none"):
        raise InvalidFileError(
            f"ctransformers does not know its rope scaling {scaling!r}: "
            "use the llama_cpp backend"
        )


def _check_tensors(tensors: Iterable[GGUFTensor], sizes: Sizes) -> None:
    """Check that there is each tensor that the library wants, and no other."""
    expected, found = dict(_shapes(sizes)), {tensor.name: tensor for tensor in tensors}
    if "output.weight" not in found:
        raise InvalidFileError(
            "it has no output.weight: ctransformers cannot compute with one matrix "
            "for input and output; use the llama_cpp backend"
        )
    check_names(expected.keys(), found.keys(), frozenset())
    for name, shape in expected.items():
        tensor = found[name]
        if tensor.shape != shape:
            raise InvalidFileError(
                f"the tensor {name!r} has the shape {tensor.shape}, not {shape}"
            )
        if tensor.type not in (TENSOR_TYPES if len(shape) == 2 else ("F32",)):
            raise InvalidFileError(
                f"the tensor {name!r} is of type {tensor.type}, which ctransformers "
                "does not know: use the llama_cpp backend"
            )


def _shapes(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, keys, inner = sizes.embedding, sizes.keys, sizes.feed_forward
    yield "token_embd.weight", (width, sizes.vocabulary)
    yield "output_norm.weight", (width,)
    yield "output.weight", (width, sizes.vocabulary)
    block = {
        "attn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (width, keys),
        "attn_v": (width, keys),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_gate": (width, inner),
        "ffn_up": (width, inner),
        "ffn_down": (inner, width),
    }
    for layer in range(sizes.layers):
        for name, shape in block.items():
            yield f"blk.{layer}.{name}.weight", shape


# -- the vocabulary ----------------------------------------------------------------


@frozen
class _Token:
    text: bytes
    kind: int


def _tokens(settings: _Settings) -> list[_Token]:
    if (model := settings.text(f"{TOKENIZER}model")) != "llama":
        raise InvalidFileError(
            f"ctransformers reads SentencePiece vocabularies only, not {model!r}: "
            "use the llama_cpp backend"
        )
    texts = settings.array(f"{TOKENIZER}tokens", "string")
    kinds = settings.array(f"{TOKENIZER}token_type", "i32", "u32")
    scores = settings.array(f"{TOKENIZER}scores", "f32")
    if not len(texts) == len(kinds) == len(scores):
        raise InvalidFileError("its tokens, their types and scores differ in number")
    if not all(isinstance(s, float) and math.isfinite(s) for s in scores):
        raise InvalidFileError(f"{TOKENIZER}scores are not all finite numbers")
    # The library reads a text up to its first NUL.
    tokens = [
        _Token(text.partition(b"\0")[0], kind)
        for text, kind in zip(texts, kinds, strict=True)
        if isinstance(text, bytes) and isinstance(kind, int)
    ]
    known = {token.text for token in tokens}
    if not known.issuperset(b"<0x%02X>" % byte for byte in range(256)):
        raise InvalidFileError("its vocabulary has not a token for each byte")
    for name in ("bos", "eos", "unknown", "seperator", "padding"):
        number = settings.token(name)
        if number is not None and number >= len(tokens):
            raise InvalidFileError(
                f"its {name} token {number} is not in the vocabulary"
            )
    return tokens


def _vocabulary(settings: _Settings, tokens: list[_Token]) -> Vocabulary:
    numbers = {token.text: number for number, token in enumerate(tokens)}
    return Vocabulary(
        pieces=tuple(map(_piece, tokens)),
        byte_tokens={byte: numbers[b"<0x%02X>" % byte] for byte in range(256)},
        space_first=settings.flag(f"{TOKENIZER}add_space_prefix", default=True),
        separator=_separator(tokens),
    )


def _piece(token: _Token) -> bytes:
    if token.kind in (UNKNOWN, CONTROL, UNUSED):
        return b""
    if token.kind == BYTE:
        found = re.fullmatch(rb"<0x([0-9A-F]{2})>", token.text)
        return bytes.fromhex(found[1].decode()) if found else b""
    return token.text.replace("▁".encode(), b" ")


def _separator(tokens: list[_Token]) -> bytes:
    used = b"".join(token.text for token in tokens)
    for number in range(1, 32):
        if number not in used:
            return bytes([number])
    raise InvalidFileError("its vocabulary uses every control character")


# -- for people --------------------------------------------------------------------


def _info(
    settings: _Settings,
    tokens: list[_Token],
    sizes: Sizes,
    tensors: tuple[GGUFTensor, ...],
) -> ModelInfo:
    special = {
        token.text.decode(errors="replace"): number
        for number, token in enumerate(tokens)
        if token.kind == CONTROL
    }
    eos = settings.token("eos", 2)
    ends = {eos, settings.token("eot"), settings.token("eom")}
    ends |= {special[text] for text in TURN_ENDS if text in special}
    return ModelInfo(
        architecture="llama",
        vocab_size=len(tokens),
        name=settings.text("general.name"),
        description="llama in GGUF",
        trained_context=settings.number("llama.context_length"),
        embedding_size=sizes.embedding,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.keys * sizes.heads // sizes.embedding,
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        size_bytes=sum(tensor.size for tensor in tensors),
        bos_token=settings.token("bos", 1),
        eos_token=eos,
        add_bos=settings.flag(f"{TOKENIZER}add_bos_token", default=True),
        end_tokens=frozenset(token for token in ends if token is not None),
        special_tokens=special,
        chat_template=settings.text("tokenizer.chat_template") or None,
        metadata=dict(_metadata(settings.values)),
    )


def _metadata(values: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value.value, bytes):
            yield key, value.value.decode(errors="replace")
        elif not isinstance(value.value, tuple):
            yield key, str(value.value)
