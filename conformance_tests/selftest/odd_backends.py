"""The engines of `odd`, imported at first use."""

from __future__ import annotations

import odd

from llmcore.backends.null.backend import NullBackend
from llmcore.testing import NullScript
from llmcore.values import CacheKind


def bare() -> NullBackend:
    return NullBackend(NullScript(capabilities=odd.BARE.capabilities))


def samples_only() -> NullBackend:
    return NullBackend(NullScript(capabilities=odd.SAMPLES_ONLY.capabilities))


def slow_to_free() -> NullBackend:
    return NullBackend(NullScript(release_delay=True))


def one_at_a_time() -> NullBackend:
    return NullBackend(NullScript(exclusion="process"))


def forgetful() -> NullBackend:
    return NullBackend(NullScript(cache_kind=CacheKind.RECURRENT))


def short_sighted() -> NullBackend:
    return NullBackend(NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=64))
