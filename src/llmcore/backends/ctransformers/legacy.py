"""
Files from before GGUF: magic "ggml", "ggmf" or "ggjt".

The loaders of the library trust every number in them, and leave alone what is missing.
So all of it is checked: what passes is complete, and of the size that it must have.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

from llmcore.backends.ctransformers import ggjt
from llmcore.backends.ctransformers.layouts import LAYOUTS, Layout
from llmcore.backends.ctransformers.model_file import (
    ModelFile,
    Sizes,
    Vocabulary,
    check_heads,
)
from llmcore.backends.ctransformers.tensors import (
    FILE_TYPES,
    Reader,
    Tensors,
    check_names,
    check_rows,
    read_tensors,
)
from llmcore.gguf_header import InvalidFileError
from llmcore.values import ModelInfo

MAGIC = b"lmgg"
"""The number 0x67676d6c, as it lies in a file."""

MOST_LAYERS = 80
"""More have more operations than the library has places for."""

MOST_TOKENS = 2**22

QUANTISATION = 2
"""The version of the quantised types that the library computes with."""

END_OF_TEXT = b"<|endoftext|>"
CONTROL = re.compile(
    rb"<\|[^\s|]+\|>|<fim[-_]\w+>|### End|### Instruction:|### Response:"
)
"""Control tokens of GPT models and StarCoder, and those of Dolly."""
TURN_ENDS = (END_OF_TEXT, b"<|end|>", b"<|im_end|>", b"### End")


def read(data: mmap.mmap, path: Path) -> ModelFile:
    """
    Check a whole file; its first numbers do not tell the model type, so try them all.

    Raises:
        InvalidFileError: With the reason in words, of the type that fitted best.
    """
    if data[:4] in ggjt.MAGICS:
        return ggjt.read(data, path)
    if data[:4] != MAGIC:
        raise InvalidFileError(
            f"neither a GGUF nor a GGML file: it starts with {data[:4]!r}"
        )
    furthest, why = -1, InvalidFileError("")
    for layout in LAYOUTS:
        reader = Reader(data, len(MAGIC))
        try:
            return _read_as(layout, reader)
        except InvalidFileError as error:
            if reader.position > furthest:
                furthest, why = reader.position, error
    known = ", ".join(layout.architecture for layout in LAYOUTS)
    raise InvalidFileError(f"it is not a complete file of {known}: {why}")


def _read_as(layout: Layout, reader: Reader) -> ModelFile:
    values = reader.numbers(len(layout.numbers))
    numbers = dict(zip(layout.numbers, values, strict=True))
    count = numbers["vocabulary"]
    if layout.repeats and reader.numbers(1) != (count,):
        raise InvalidFileError("the size of its vocabulary is not repeated")
    if not 1 <= count <= MOST_TOKENS:
        raise InvalidFileError(f"it has {count} tokens, must be 1 to {MOST_TOKENS}")
    texts = [reader.text() for _ in range(count)]
    # Only now, as the vocabulary of another layout is seldom found in its place.
    _check(numbers)
    kind = _file_type(numbers["type"])
    tensors = read_tensors(reader)
    _check_tensors(layout, numbers, tensors, kind)
    sizes = _sizes(layout, numbers)
    return ModelFile(
        kind=layout.kind,
        info=_info(layout, sizes, texts, tensors, kind),
        sizes=sizes,
        vocabulary=Vocabulary(
            pieces=tuple(b"" if CONTROL.fullmatch(text) else text for text in texts),
            byte_tokens={},
        ),
        scratch=layout.scratch,
        copies_values=layout.copies_values,
    )


def _check(numbers: Mapping[str, int]) -> None:
    """Check the numbers before anything is computed with them."""
    limits = {
        "positions": 2**20,
        "embedding": 2**14,
        "heads": 2**10,
        "layers": MOST_LAYERS,
    }
    for name, most in limits.items():
        if not 1 <= numbers[name] <= most:
            raise InvalidFileError(
                f"the number of {name} is {numbers[name]}, must be 1 to {most}"
            )
    embedding, heads = numbers["embedding"], numbers["heads"]
    check_heads(embedding, heads)
    head = embedding // heads
    rotated = numbers.get("rotated", 2)
    if rotated % 2 or not 2 <= rotated <= head:
        raise InvalidFileError(f"{rotated} rotated values do not fit heads of {head}")
    cells = numbers["layers"] * numbers["positions"]
    # The library counts in 32 bits.
    if embedding * max(numbers["vocabulary"], 4 * embedding, cells) >= 2**31:
        raise InvalidFileError("its sizes are more than ctransformers can count")


def _file_type(number: int) -> str:
    version, kind = divmod(number, 1000)
    if kind not in FILE_TYPES:
        raise InvalidFileError(f"it has the unknown file type {kind}")
    name = FILE_TYPES[kind]
    if name not in ("F32", "F16") and version != QUANTISATION:
        raise InvalidFileError(
            f"its quantisation is of version {version}, only {QUANTISATION} is "
            "supported: quantise the original again"
        )
    return name


def _check_tensors(
    layout: Layout, numbers: Mapping[str, int], tensors: Tensors, kind: str
) -> None:
    expected = dict(layout.shapes(numbers))
    check_names(expected.keys(), tensors.keys(), layout.optional)
    for name, tensor in tensors.items():
        plain = len(expected[name]) == 1 or name == layout.positions
        if tensor.shape != expected[name] or tensor.type != ("F32" if plain else kind):
            raise InvalidFileError(
                f"the tensor {name!r} is of shape {tensor.shape} and type "
                f"{tensor.type}, which does not fit"
            )
        check_rows(name, tensor)


def _sizes(layout: Layout, numbers: Mapping[str, int]) -> Sizes:
    return Sizes(
        vocabulary=numbers["vocabulary"],
        embedding=numbers["embedding"],
        heads=numbers["heads"],
        layers=numbers["layers"],
        feed_forward=4 * numbers["embedding"],
        keys=numbers["embedding"],
        cache_bytes=layout.cache_bytes,
        positions=numbers["positions"],
    )


def _info(
    layout: Layout, sizes: Sizes, texts: list[bytes], tensors: Tensors, kind: str
) -> ModelInfo:
    special = {text: n for n, text in enumerate(texts) if CONTROL.fullmatch(text)}
    end = special.get(END_OF_TEXT)
    return ModelInfo(
        architecture=layout.architecture,
        vocab_size=sizes.vocabulary,
        description=f"{layout.architecture} {kind} in GGML",
        trained_context=sizes.positions or 0,
        embedding_size=sizes.embedding,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.heads,
        parameters=sum(tensor.elements for tensor in tensors.values()),
        size_bytes=sum(tensor.size for tensor in tensors.values()),
        bos_token=end,
        eos_token=end,
        end_tokens=frozenset(special[text] for text in TURN_ENDS if text in special),
        special_tokens={t.decode(errors="replace"): n for t, n in special.items()},
        metadata={"general.architecture": layout.architecture},
    )
