"""Backends that are unusual and right: the suite must not mind them."""

from __future__ import annotations

from attrs import evolve

from llmcore.backends.null import INFO
from llmcore.values import Capability

BARE = evolve(
    INFO, factory="odd_backends:bare", capabilities=frozenset({Capability.LOGITS})
)
"""Can do nothing but the least: logits of one sequence."""

SAMPLES_ONLY = evolve(
    INFO,
    factory="odd_backends:samples_only",
    capabilities=frozenset({Capability.NATIVE_SAMPLING, Capability.MULTI_SEQUENCE}),
)
"""Never shows logits, only draws tokens."""

SLOW_TO_FREE = evolve(INFO, factory="odd_backends:slow_to_free")
"""What it frees is not free at once."""

ONE_AT_A_TIME = evolve(INFO, factory="odd_backends:one_at_a_time", exclusion="process")
"""Allows one call in the whole process."""

FORGETFUL = evolve(INFO, factory="odd_backends:forgetful")
"""Remembers a state and no positions: nothing can be cut off."""

SHORT_SIGHTED = evolve(INFO, factory="odd_backends:short_sighted")
"""Remembers only the last positions."""

ODD = [name for name in globals() if name.isupper() and name != "INFO"]
