"""`Footprint`: sums by device and purpose, and what they look like."""

from __future__ import annotations

import json

import pytest

from llmcore.memory import Footprint, Term, size_text

PARTS = Footprint(
    (
        Term(device="cpu", purpose="weights", size=100, why="2 of 3 layers"),
        Term(device="CUDA0", purpose="weights", size=50, why="1 of 3 layers"),
        Term(device="cpu", purpose="cache", size=7),
    )
)


def test_sums():
    """A footprint adds up by device, by purpose, and in all."""
    assert PARTS.total == 157
    assert PARTS.devices == {"cpu": 107, "CUDA0": 50}
    assert PARTS.purposes == {"weights": 150, "cache": 7}
    assert (PARTS.of("cache"), PARTS.of("compute")) == (7, 0)
    assert (PARTS.on("CUDA0"), PARTS.on("CUDA1")) == (50, 0)
    assert (PARTS + PARTS).total == 314
    assert Footprint().total == 0


def test_words():
    """`explain` has a line for each term, with its reason, and the total."""
    lines = PARTS.explain().splitlines()
    assert lines[0].split() == ["cpu", "weights", "100", "B", "2", "of", "3", "layers"]
    assert lines[-1].split() == ["total", "157", "B"]


def test_json():
    """`as_dict` is plain values."""
    told = json.loads(json.dumps(PARTS.as_dict()))
    assert told["devices"] == {"cpu": 107, "CUDA0": 50}
    assert told["terms"][1]["why"] == "1 of 3 layers"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"purpose": "fun", "size": 1}, ValueError),
        ({"purpose": "cache", "size": -1}, ValueError),
        ({"purpose": "cache", "size": 1.5}, TypeError),
    ],
)
def test_bad_terms(fields, error):
    """A term has a known purpose and a whole number of bytes."""
    with pytest.raises(error):
        Term(device="cpu", **fields)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (377_487_360, "360.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes(size, text):
    """Sizes are told in binary units."""
    assert size_text(size) == text
