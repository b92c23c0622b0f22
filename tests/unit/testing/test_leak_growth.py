"""`growth`: bytes that each round of some work adds."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmcore
from llmcore.testing import LeakError, growth, null_backend
from llmcore.testing.leak_growth import slope

MEGA = 2**20


def new_pages() -> mmap.mmap:
    """A megabyte that the system has to find: the heap may still have one."""
    pages = mmap.mmap(-1, MEGA)
    pages.write(b"x" * MEGA)
    return pages


def test_steady() -> None:
    """Work that gives back what it takes does not grow."""
    found = growth(lambda: b"x" * MEGA, 10, most=MEGA // 8)

    assert abs(found.ram) < MEGA // 8
    assert len(found.samples) == 11


def test_hoarding() -> None:
    """Work that keeps a megabyte each time grows by that."""
    hoard: list[mmap.mmap] = []
    found = growth(lambda: hoard.append(new_pages()), 10)

    assert 0.8 * MEGA < found.ram < 1.2 * MEGA
    assert len(hoard) == 13


def test_too_much() -> None:
    """More than allowed is a leak, with both numbers."""
    hoard: list[mmap.mmap] = []
    with pytest.raises(LeakError, match=r"RAM grows by .* with each round") as caught:
        growth(lambda: hoard.append(new_pages()), 10, most=4096)

    assert [leak.kind for leak in caught.value.leaks] == ["memory"]
    assert "may by 4.0 KiB" in str(caught.value)


def test_cycles_of_llmcore() -> None:
    """Loading, generating and disposing adds nothing."""

    def cycle() -> None:
        with llmcore.get_llama(null_backend()) as llama:
            context = llama.load_model().create_context(context_size=64)
            with context.get_sequence() as sequence:
                sequence.evaluate([1, 2, 3])

    assert growth(cycle, 10, most=16 * 1024).vram == 0


def test_gpu() -> None:
    """The memory of GPUs is looked at on the instance that is given; none has none."""
    with llmcore.get_llama(null_backend()) as llama:
        assert growth(lambda: None, 3, llama=llama).vram == 0


def test_too_few() -> None:
    """One round has no slope."""
    with pytest.raises(ValueError, match="2 or more, got 1"):
        growth(lambda: None, 1)


def test_platform_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody tells how much memory a process uses, that is said."""
    monkeypatch.setattr("llmcore.testing.leak_growth.process_rss", lambda: None)
    with pytest.raises(OSError, match="install psutil"):
        growth(lambda: None)


@given(
    st.lists(st.integers(0, 2**40), min_size=2, max_size=12),
    st.integers(-(2**20), 2**20),
)
def test_slope_of_a_line(start: list[int], step: int) -> None:
    """Points on a line have its slope, wherever it starts."""
    line = [start[0] + step * number for number in range(len(start))]

    assert slope(line) == step


@given(st.integers(0, 8), st.integers(0, 2**40))
def test_jumps_do_not_count(where: int, jump: int) -> None:
    """One jump among ten samples does not make a slope."""
    samples = [1000] * where + [1000 + jump] * (10 - where)
    grown = slope(samples)

    assert grown <= jump / 5 if 4 <= where <= 6 else grown == 0
