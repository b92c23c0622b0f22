"""
Builds state files by hand and damages them, with their checksums made right or not.

``python -m tests.unit.fuzz_state_file 60`` tries random damage for 60 seconds.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcore import state_file
from llmcore.errors import StateError
from llmcore.state_file import SavedState, StateHeader
from llmcore.state_file.layout import pack

MAGIC = b"LLMCORE-STATE\0\r\n"
START = 56
DIGEST = 32
NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    31,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63,
    2**64 - 1,
)
ODD_JSON = (
    *("null", "true", "false", "-1", "1e999", "-1e999", "NaN", "Infinity", "1.5"),
    *(
        '""',
        '"\\ud800"',
        '"\\u0000"',
        "[]",
        "{}",
        '{"a":1,"a":2}',
        '"' + "x" * 5000 + '"',
    ),
    *(
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 5000,
        "1" + "0" * 400,
        "",
        "'",
        "\ufeff{}",
    ),
)


def header(**fields: Any) -> StateHeader:
    """A header like that of a small model."""
    usual = {
        "kind": "sequence",
        "backend": "null",
        "build": "null 1.0",
        "model": "0123abcd",
        "cache_kind": "full",
        "kv_type_k": "f16",
        "kv_type_v": "q8_0",
        "context_size": 64,
        "vocab_size": 1000,
        "llmcore": "0.1",
    }
    return StateHeader(**{**usual, **fields})


def tiny_state() -> SavedState:
    """A state with something in every part."""
    return SavedState(
        header=header(kind="chat"),
        tokens=(1, 2, 999),
        payload=b"payload",
        chat={"history": [["user", "hé"]], "template": "ab"},
    )


def parts(content: bytes) -> list[bytes]:
    """Header, chat, tokens and payload of a whole file."""
    lengths = struct.unpack_from("<4Q", content, 20)
    ends = list(itertools.accumulate(lengths, initial=START))
    return [content[start:end] for start, end in itertools.pairwise(ends)]


def sealed(
    header: bytes = b"{}",
    chat: bytes = b"",
    tokens: bytes = b"",
    payload: bytes = b"",
    *,
    version: int = 1,
    lengths: tuple[int, ...] | None = None,
) -> bytes:
    """A file of these parts whose checksums are right, whatever the parts are."""
    body = (header, chat, tokens, payload)
    start = struct.pack("<16sI4Q", MAGIC, version, *(lengths or map(len, body)))
    whole = b"".join([start, struct.pack("<I", zlib.crc32(start)), *body])
    return whole + hashlib.sha256(whole).digest()


# -- damage --------------------------------------------------------------------------

Damage = Callable[[random.Random, bytes], bytes]


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    place, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 8, 16))
    return data[:place] + rng.randbytes(size) + data[place + size :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randrange(1, 40)) + data[place:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:end] + data[start:]


def _number(rng: random.Random, data: bytes) -> bytes:
    place = rng.choice((16, 20, 28, 36, 44, 52, rng.randrange(len(data) + 1)))
    number = struct.pack("<Q", rng.choice(NUMBERS))
    return data[:place] + number + data[place + 8 :]


RAW: tuple[Damage, ...] = (_flip, _overwrite, _insert, _delete, _repeat, _number)


def _resealed(rng: random.Random, content: bytes) -> bytes:
    """Damage within the parts, under checksums and lengths that are right."""
    changed = parts(content)
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(4)
        changed[index] = rng.choice(RAW)(rng, changed[index])
    return sealed(*changed)


def _other_json(rng: random.Random, content: bytes) -> bytes:
    """Odd JSON in the place of a value of the header, a key, or a whole part."""
    header, chat, *rest = parts(content)
    odd = rng.choice(ODD_JSON)
    fields = json.loads(header)
    name = rng.choice(list(fields))
    where = rng.randrange(5)
    if where == 0:
        header = odd.encode()
    elif where == 1:
        chat = odd.encode()
    elif where == 2:
        chat = b'{"a":' + odd.encode() + b"}"
    elif where == 3:
        del fields[name]
        header = json.dumps(fields).encode()
    else:
        value = json.dumps(fields[name])
        header = json.dumps(fields).replace(value, odd, 1).encode()
    return sealed(header, chat, *rest)


def _lying_lengths(rng: random.Random, content: bytes) -> bytes:
    body = parts(content)
    lengths = list(map(len, body))
    lengths[rng.randrange(4)] = rng.choice(NUMBERS)
    return sealed(*body, lengths=tuple(lengths))


def mutations(seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless damaged files, each with the name of what was done to it."""
    rng = random.Random(seed)
    whole = b"".join(pack(tiny_state()))
    deep: tuple[Damage, ...] = (_resealed, _other_json, _lying_lengths)
    while True:
        damage = rng.choice(RAW + deep * 2)
        yield damage.__name__.strip("_"), damage(rng, whole)


def reason(path: Path, content: bytes) -> str:
    """Why reading this content is refused."""
    path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        state_file.read(path)
    before, quoted, after = str(caught.value).partition(repr(str(path)))
    assert ("cannot load state: ", repr(str(path))) == (before, quoted)
    return after.strip()


def outcome(path: Path, content: bytes) -> str:
    """What reading this content leads to; raises what is no `StateError`."""
    path.write_bytes(content)
    try:
        state = state_file.read(path)
    except StateError:
        return "refused"
    return "unchanged" if state == tiny_state() else "read"


def main(seconds: float) -> None:
    """Print how often each kind of damage was refused, read, or without effect."""
    seed = random.SystemRandom().randrange(2**32)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for name, content in mutations(seed):
            counts[name, outcome(Path(folder, "state"), content)] += 1
            if time.monotonic() > end:
                break
    print(f"seed {seed}, {counts.total()} files")
    for (name, result), count in sorted(counts.items()):
        print(f"{name:>14} {result:<9} {count:>7}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
