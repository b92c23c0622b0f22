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

ONE_PER_MODEL = evolve(INFO, factory="odd_backends:one_per_model", exclusion="model")
"""Allows one call among all contexts of a model."""

STUBBORN = evolve(INFO, factory="odd_backends:stubborn")
"""Has a window, and refuses to remove anything although that may be possible."""

GENEROUS = evolve(INFO, factory="odd_backends:generous")
"""Gives larger contexts than it is asked for."""

TACITURN = evolve(INFO, factory="odd_backends:taciturn")
"""Knows no more of its model than its vocabulary: no name, no end, no template."""

TALKATIVE = evolve(INFO, factory="odd_backends:talkative")
"""Tells its progress a thousand times."""

ELSEWHERE = evolve(INFO, factory="odd_backends:elsewhere")
"""Does all its work in a thread of its own."""

READS_FILES = evolve(INFO, factory="odd_backends:reads_files", formats=("odd",))
"""Has a format of its own, for which the suite has no model."""

EMBEDS_ELSEWHERE = evolve(
    INFO, factory="odd_backends:embeds_elsewhere", formats=("gguf",)
)
"""Reads GGUF; its models either generate or embed."""

READS_MAMBA = evolve(INFO, factory="odd_backends:reads_mamba", formats=("gguf",))
"""Reads GGUF of one architecture only."""

OLDER = evolve(INFO, factory="odd_backends:older", spec="1.0")
"""Was written for an older minor version of the spec."""

ODD = [name for name in globals() if name.isupper() and name != "INFO"]
