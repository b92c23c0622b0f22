"""
The Llama files from before GGUF: magic "ggmf" or "ggjt".

What they lack is taken from the first Llama: the rotation, the precision of the norms,
the width of the feed-forward part.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from llmcore.backends.ctransformers.model_file import (
    ModelFile,
    Sizes,
    Vocabulary,
    check_heads,
)
from llmcore.backends.ctransformers.tensors import (
    Reader,
    Tensors,
    check_names,
    check_rows,
    read_tensors,
)
from llmcore.gguf_header import InvalidFileError
from llmcore.values import ModelInfo

MAGICS = (b"fmgg", b"tjgg")
"""The numbers 0x67676d66 and 0x67676a74, as they lie in a file."""

ALIGNED = (b"tjgg", 1)
"""From this magic and version on tensors are aligned, and can be mapped."""
ALIGNMENT = 32

VERSIONS = {(b"fmgg", 1): 1, (b"tjgg", 1): 1, (b"tjgg", 2): 2, (b"tjgg", 3): 3}
"""Version of the quantised types in a file, by its magic and its own version."""
REMADE = {"Q4_0": 3, "Q4_1": 3, "Q8_0": 3, "Q5_0": 2, "Q5_1": 2}
"""From which version on a type is what it is today; others came later."""
PLAIN_FILES, LAST_FILE = (0, 1), 18
"""Of ``enum llama_ftype``: all F32, mostly F16, and the last one that there was."""
REMADE_FILES = (2, 3, 7)
"""Of ``enum llama_ftype``: mostly of a type that version 3 changed."""

MOST_LAYERS = 100
TRAINED = 2048
UNKNOWN, BOS, EOS = 0, 1, 2

GROUPED = re.compile(rb"(\b|_)70b(\b|_)", re.IGNORECASE)
"""Where the library finds this in the path, it takes 8 heads for each key."""


def read(data: mmap.mmap, path: Path) -> ModelFile:
    """
    Check a whole file.

    Raises:
        InvalidFileError: With the reason in words.
    """
    reader = Reader(data, 4)
    version = VERSIONS.get((data[:4], reader.numbers(1)[0]))
    if version is None:
        raise InvalidFileError("a GGML file of an unknown version: convert it to GGUF")
    *numbers, kind = reader.numbers(7)
    _check_age(kind, version)
    sizes = _sizes(numbers, grouped=bool(GROUPED.search(os.fsencode(path))))
    texts = [_token(reader) for _ in range(sizes.vocabulary)]
    if missing := set(range(1, 256)) - {t[0] for t in texts if len(t) == 1}:
        raise InvalidFileError(
            f"its vocabulary has not a token for each byte: it lacks {min(missing)}"
        )
    aligned = data[:4] == ALIGNED[0]
    tensors = read_tensors(reader, alignment=ALIGNMENT if aligned else 1)
    _check_tensors(tensors, sizes, version)
    return ModelFile(
        kind="llama",
        info=_info(sizes, tensors),
        sizes=sizes,
        vocabulary=_vocabulary(texts),
        own_tokenizer=True,
        mappable=aligned,
    )


def _check_age(kind: int, version: int) -> None:
    if kind > LAST_FILE:
        raise InvalidFileError(f"it has the unknown file type {kind}")
    if (version == 1 and kind not in PLAIN_FILES) or (
        version == 2 and kind in REMADE_FILES
    ):
        raise InvalidFileError(
            "its quantised types are of an old version: quantise the original again"
        )


def _sizes(numbers: list[int], *, grouped: bool) -> Sizes:
    vocabulary, embedding, multiple, heads, layers, rotated = numbers
    if not (
        256 <= vocabulary <= 2**22
        and 1 <= embedding <= 2**16
        and 1 <= multiple <= 2**16
        and 1 <= heads <= 2**10
        and 1 <= layers <= MOST_LAYERS
    ):
        raise InvalidFileError(f"its sizes are not those of a llama: {numbers}")
    groups = 8 if grouped else 1
    check_heads(embedding, heads, groups)
    if rotated != embedding // heads:
        raise InvalidFileError(f"{rotated} rotated values are not a whole head")
    width = 2 * 4 * embedding // 3
    if grouped and layers == 80:
        width = int(width * _single(1.3))  # as the 70B model has it
    return Sizes(
        vocabulary=vocabulary,
        embedding=embedding,
        heads=heads,
        layers=layers,
        feed_forward=-(-width // multiple) * multiple,
        keys=embedding // groups,
        cache_bytes=2,
    )


def _single(number: float) -> float:
    """The nearest number of single precision, with which the library computes."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def _token(reader: Reader) -> bytes:
    text = reader.text()
    (score,) = struct.unpack("<f", reader.bytes(4))
    if not math.isfinite(score):
        raise InvalidFileError(f"the token {text!r} has the score {score}")
    return text


def _check_tensors(tensors: Tensors, sizes: Sizes, version: int) -> None:
    expected = dict(_shapes(sizes))
    check_names(expected.keys(), tensors.keys(), frozenset())
    for name, tensor in tensors.items():
        plain = len(tensor.shape) == 1 and tensor.type != "F32"
        if tensor.shape != expected[name] or plain:
            raise InvalidFileError(
                f"the tensor {name!r} is of shape {tensor.shape} and type "
                f"{tensor.type}, which does not fit"
            )
        if version < REMADE.get(tensor.type, 0):
            raise InvalidFileError(
                f"the tensor {name!r} is of an old version of {tensor.type}: "
                "quantise the original again"
            )
        check_rows(name, tensor)


def _shapes(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, keys, inner = sizes.embedding, sizes.keys, sizes.feed_forward
    yield "tok_embeddings.weight", (width, sizes.vocabulary)
    yield "norm.weight", (width,)
    yield "output.weight", (width, sizes.vocabulary)
    block = {
        "attention_norm": (width,),
        "attention.wq": (width, width),
        "attention.wk": (width, keys),
        "attention.wv": (width, keys),
        "attention.wo": (width, width),
        "ffn_norm": (width,),
        "feed_forward.w1": (width, inner),
        "feed_forward.w2": (inner, width),
        "feed_forward.w3": (width, inner),
    }
    for layer in range(sizes.layers):
        for name, shape in block.items():
            yield f"layers.{layer}.{name}.weight", shape


def _vocabulary(texts: list[bytes]) -> Vocabulary:
    control = (UNKNOWN, BOS, EOS)
    pieces = (b"" if n in control else text for n, text in enumerate(texts))
    return Vocabulary(
        pieces=tuple(pieces),
        byte_tokens={text[0]: n for n, text in enumerate(texts) if len(text) == 1},
    )


def _info(sizes: Sizes, tensors: Tensors) -> ModelInfo:
    kind = tensors["layers.0.attention.wq.weight"].type
    return ModelInfo(
        architecture="llama",
        vocab_size=sizes.vocabulary,
        description=f"llama {kind} in GGML",
        trained_context=TRAINED,
        embedding_size=sizes.embedding,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.keys * sizes.heads // sizes.embedding,
        parameters=sum(tensor.elements for tensor in tensors.values()),
        size_bytes=sum(tensor.size for tensor in tensors.values()),
        bos_token=BOS,
        eos_token=EOS,
        add_bos=True,
        end_tokens=frozenset({EOS}),
        special_tokens={"<unk>": UNKNOWN, "<s>": BOS, "</s>": EOS},
        metadata={"general.architecture": "llama"},
    )
