"""Damages legacy files in ways that keep some of their structure."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve

from .legacy_models import Image

NUMBERS = (
    *(0, 1, 2, 3, 5, 7, 8, 16, 31, 32, 63, 64, 65, 80, 81, 101, 128, 255, 256, 1000),
    *(1001, 2000, 2002, 2010, 65_536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1),
)


def damaged(image: Image, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies, the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        copy = image
        for _ in range(chance.choice((0, 1, 1, 2))):
            copy = chance.choice(STRUCTURED)(copy, chance)
        raw = bytes(copy)
        if copy is image or chance.random() < 0.1:
            raw = chance.choice(RAW)(raw, _places(copy), chance)
        yield raw


def _places(image: Image) -> list[int]:
    """Where in the file the header, and the record of each tensor, are."""
    places, position = list(range(len(image.header))), len(image.header)
    for name, values in image.tensors.items():
        head = 12 + 4 * values.ndim + len(name)
        places += range(position, position + head)
        record = bytes(evolve(image, tensors={name: values}))[len(image.header) :]
        position += len(record)
    return places


# -- pieces ------------------------------------------------------------------------


def _number(image: Image, chance: random.Random) -> Image:
    name = chance.choice(list(image.numbers))
    old = image.numbers[name]
    near = (old - 1, old + 1, old * 2, old // 2, -old)
    new = chance.choice((*NUMBERS, *near)) % 2**32
    return evolve(image, numbers={**image.numbers, name: new})


def _tokens(image: Image, chance: random.Random) -> Image:
    tokens = list(image.tokens)
    index = chance.randrange(len(tokens))
    match chance.randrange(4):
        case 0:
            del tokens[index]
        case 1:
            tokens[index] = b"\0" * chance.choice((0, 1, 200, 70_000))
        case 2:
            tokens[index] = tokens[chance.randrange(len(tokens))]
        case 3:
            tokens.append(b"<|new|>")
            renumbered = {**image.numbers, "vocabulary": len(tokens)}
            return evolve(image, tokens=tokens, numbers=renumbered)
    return evolve(image, tokens=tokens)


def _tensor(image: Image, chance: random.Random) -> Image:
    tensors = dict(image.tensors)
    name = chance.choice(list(tensors))
    values = tensors[name]
    match chance.randrange(5):
        case 0:
            del tensors[name]
        case 1:
            tensors[chance.choice(("x", name + "x", "y" * 200))] = tensors.pop(name)
        case 2:
            tensors[name] = values[: chance.randrange(len(values) + 1)]
        case 3:
            tensors[name] = values.T.copy()
        case 4:
            tensors[name] = np.full_like(values, chance.choice((np.nan, np.inf, 0)))
    return evolve(image, tensors=tensors)


def _kind(image: Image, chance: random.Random) -> Image:
    """Other types, all of them or one, with data to match."""
    new = chance.choice((0, 1, 2))
    matrices = [name for name, values in image.tensors.items() if values.ndim == 2]
    chosen = matrices if chance.random() < 0.7 else [chance.choice(matrices)]
    version = 2000 if "positions" in image.numbers and new > 1 else 0
    numbers = {**image.numbers, "type": version + new}
    return evolve(image, numbers=numbers, kinds=dict.fromkeys(chosen, new))


def _repeat(image: Image, chance: random.Random) -> Image:
    return evolve(image, repeats=not image.repeats)


# -- bytes -------------------------------------------------------------------------


def _flip(raw: bytes, places: list[int], chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.choice(places)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(raw: bytes, places: list[int], chance: random.Random) -> bytes:
    return raw[: chance.choice((chance.choice(places), chance.randrange(len(raw))))]


def _overwrite(raw: bytes, places: list[int], chance: random.Random) -> bytes:
    changed, position = bytearray(raw), min(chance.choice(places), len(raw) - 4)
    new = struct.pack("<I", chance.choice(NUMBERS))
    changed[position : position + 4] = new
    return bytes(changed)


def _splice(raw: bytes, places: list[int], chance: random.Random) -> bytes:
    start, target = chance.choice(places), chance.choice(places)
    length = chance.choice((1, 4, 8, 32, 256))
    removed = chance.choice((0, length))
    return raw[:target] + raw[start : start + length] + raw[target + removed :]


STRUCTURED: tuple[Callable[[Image, random.Random], Image], ...] = (
    _number,
    _number,
    _number,
    _tokens,
    _tensor,
    _kind,
    _repeat,
)
RAW: tuple[Callable[[bytes, list[int], random.Random], bytes], ...] = (
    _flip,
    _cut,
    _overwrite,
    _splice,
)
