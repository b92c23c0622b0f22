"""What tells the weights in a file from others, without reading gigabytes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

END = 1 << 20
"""Bytes hashed at each end of a file."""
SAMPLES, SAMPLE = 128, 1 << 15
"""How many places between them are looked at, and how many bytes of each."""

PART = re.compile(r"(.*-)00001(-of-(\d{5})\.gguf)")


def fingerprint(path: Path) -> str:
    """
    Tell one set of weights from another: 32 hex digits.

    The size of each file of the model is hashed, with its first and last MiB and 128
    pieces of 32 KiB spread evenly between. So it sees training, quantisation, another
    header and another length, but not a change of single tensors that lie between the
    pieces, and it is no proof against somebody who means to deceive.

    Args:
        path: The file, or the first of its parts.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(path):
        size = part.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with part.open("rb") as file:
            for offset, length in _pieces(size):
                file.seek(offset)
                digest.update(file.read(length))
    return digest.hexdigest()


def _parts(path: Path) -> list[Path]:
    found = PART.fullmatch(path.name)
    if found is None:
        return [path]
    start, end, count = found.groups()
    parts = (path.with_name(f"{start}{n:05}{end}") for n in range(1, int(count) + 1))
    return [part for part in parts if part.exists()]  # a name alone makes no parts


def _pieces(size: int) -> list[tuple[int, int]]:
    if size <= 2 * END + SAMPLES * SAMPLE:
        return [(0, size)]
    stride = (size - 2 * END) // SAMPLES
    between = [(END + n * stride, SAMPLE) for n in range(SAMPLES)]
    return [(0, END), *between, (size - END, END)]
