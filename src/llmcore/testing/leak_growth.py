"""
`growth`: how many bytes one more round of some work costs.
"""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from llmcore.lifecycle import collect_forgotten
from llmcore.memory import size_text
from llmcore.memory.machine import process_rss
from llmcore.testing.leak_error import Leak, LeakError

if TYPE_CHECKING:
    from llmcore.llama import Llama

WARM_UP = 3
"""Rounds before the first look: caches fill, libraries load, allocators take pools."""


@frozen(kw_only=True)
class Growth:
    """
    What `growth` measured.

    Attributes:
        ram: Bytes of RAM that a round adds.

        vram: Bytes of GPU memory that a round adds; 0 if no instance was given.

        samples: Bytes of RAM of this process after the warm-up and after each round.
    """

    ram: float
    vram: float
    samples: tuple[int, ...]


def growth(
    cycle: Callable[[], object],
    times: int = 20,
    *,
    most: float | None = None,
    warm_up: int = WARM_UP,
    llama: Llama | None = None,
) -> Growth:
    """
    Run some work again and again, and tell by how much the memory grows each time.

    The slope is the median of those between all pairs of samples, so that a jump now
    and then, such as a pool that an allocator takes, does not count:
    P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    What only waits for the garbage collector does not count either.

    Args:
        cycle: One round of the work.

        times: Rounds that are measured, 2 or more.

        most: Bytes that a round may add, of either memory; None for any number.

        warm_up: Rounds before that.

        llama: An instance that outlives the rounds, for the memory of its GPUs.

    Raises:
        LeakError: A round adds more than that.

        OSError: This platform tells nothing of a process's memory.
    """
    if times < 2:
        raise ValueError(f"times must be 2 or more, got {times}")
    for _ in range(warm_up):
        cycle()
    samples = [used_memory(llama)]
    for _ in range(times):
        cycle()
        samples.append(used_memory(llama))
    ram, vram = zip(*samples, strict=True)
    grown = Growth(ram=slope(ram), vram=slope(vram), samples=ram)
    if most is not None:
        _check(grown, most, times)
    return grown


def slope(samples: Sequence[float]) -> float:
    """The median of the slopes between all pairs of samples, by their number."""
    numbered = itertools.combinations(enumerate(samples), 2)
    return statistics.median((y - x) / (j - i) for (i, x), (j, y) in numbered)


def used_memory(llama: Llama | None = None) -> tuple[int, int]:
    """
    Bytes of RAM that this process uses, and of the GPUs' memory that is used.

    Raises:
        OSError: This platform does not tell.
    """
    gc.collect()
    collect_forgotten()
    ram = process_rss()
    if ram is None:
        raise OSError(
            "this platform does not tell how much memory a process uses: "
            "install psutil, or leave memory out of the check"
        )
    return ram, 0 if llama is None else llama.get_vram_state().used


def _check(grown: Growth, most: float, times: int) -> None:
    leaks = [
        Leak(
            kind="memory",
            what=what,
            text=f"{what} grows by {size_text(round(added))} with each round (median "
            f"over {times}), and may by {size_text(round(most))}\n"
            "  look for what a round makes and does not dispose, or keeps in a list",
        )
        for what, added in (("RAM", grown.ram), ("GPU memory", grown.vram))
        if added > most
    ]
    if leaks:
        raise LeakError(leaks)
