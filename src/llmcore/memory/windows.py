"""Which layers see only the last tokens, as llama.cpp decides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llmcore.memory.header_values import HeaderValues

__all__ = ["windows"]


class _Rule(NamedTuple):
    """How the layers of an architecture take turns where the file does not say it."""

    period: int = 0  # of this many layers one sees all; 0: none does
    dense_first: bool = False  # it is the first of them, not the last
    default: int = 0  # the window if the file gives none
    fixed: int = 0  # the window, whatever the file gives


_RULES: Mapping[str, _Rule] = {
    "afmoe": _Rule(4),
    "cohere2": _Rule(4),
    "cohere2moe": _Rule(4, dense_first=True),
    "exaone-moe": _Rule(4, default=128),
    "exaone4": _Rule(4, default=4096),
    "gemma2": _Rule(2, default=4096),
    "gemma3": _Rule(6),
    "gemma3n": _Rule(5),
    "gemma4": _Rule(),
    "gpt-oss": _Rule(2),
    "granite_swa": _Rule(),
    "laguna": _Rule(4, dense_first=True),
    "lfm2": _Rule(),
    "llama4": _Rule(4, fixed=8192),
    "maple": _Rule(),
    "mellum": _Rule(4),
    "mimo2": _Rule(),
    "muse-glimmer": _Rule(4),
    "olmo2": _Rule(4),
    "plamo3": _Rule(8),
    "smallthinker": _Rule(4, dense_first=True, fixed=4096),
    "spark2_5": _Rule(),
    "step35": _Rule(),
}
"""
The architectures with a window: ``load_arch_hparams`` in llama.cpp's ``src/models``.
All others see everything, also where their file names a window (phi3).
"""


def windows(values: HeaderValues, layers: int) -> tuple[int, ...]:
    """
    The window of each layer in tokens, 0 where a layer sees everything.

    A file may give one flag per layer, or the length of a period; else the rule of the
    architecture holds (``load_swa_pattern`` in ``src/llama-model.cpp``).
    """
    architecture = values.header.architecture
    rule = _RULES.get(architecture)
    if rule is None or (architecture == "exaone4" and layers != 64):
        return (0,) * layers
    size = values.integer("attention.sliding_window", rule.default or rule.fixed)
    if size and rule.fixed:
        size = rule.fixed
    return tuple(size if slides else 0 for slides in _sliding(values, rule, layers))


def _sliding(values: HeaderValues, rule: _Rule, layers: int) -> tuple[bool, ...]:
    key = "attention.sliding_window_pattern"
    if isinstance(values.get(key), tuple):
        return tuple(map(bool, values.per_layer(key, layers)))
    period = values.integer(key, rule.period)
    if period == 0:
        return (True,) * layers
    dense = 0 if rule.dense_first else period - 1
    return tuple(layer % period != dense for layer in range(layers))
