"""
Profiles: which clauses a backend must keep to be called conforming, and how it did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmcore.values import Capability
from llmcore_conformance.clauses import Clause

PROFILES: dict[str, Capability | None] = {
    "core": None,
    "multi-sequence": Capability.MULTI_SEQUENCE,
    "state-io": Capability.STATE_IO,
    "embedding": Capability.EMBEDDING,
    "gpu": Capability.GPU,
}
"""Each profile and the capability that it needs."""


def profile_clauses(name: str, clauses: Mapping[str, Clause]) -> list[Clause]:
    """
    The clauses of a profile.

    ``core`` has all that belong to no other profile; each other has those of its
    capability, and needs ``core`` too.
    """
    own = {str(c) for c in PROFILES.values() if c is not None}
    wanted = PROFILES[name]
    return [
        clause
        for clause in clauses.values()
        if (clause.requires == wanted if wanted else clause.requires not in own)
    ]


def judge(
    name: str, clauses: Mapping[str, Clause], outcomes: Mapping[str, str]
) -> dict[str, Any]:
    """
    How a backend did in one profile.

    Args:
        name: One of `PROFILES`.

        outcomes: Of each clause: ``pass``, ``fail``, ``crash``, ``deviation``,
            ``not-run`` or ``not-supported``.

    Returns:
        Its part of the report. The result is ``failure`` if a binding clause failed,
        ``partial`` if one was not proved, ``not-supported`` if the profile does not
        apply, else ``success``. Other clauses are counted and change nothing.
    """
    mine = profile_clauses(name, clauses)
    must = Counter(outcomes[clause.id] for clause in mine if clause.binding)
    should = Counter(outcomes[clause.id] for clause in mine if not clause.binding)
    applicable = must.total() - must["not-supported"]
    if must["fail"] or must["crash"]:
        result = "failure"
    elif not applicable:
        result = "not-supported"
    elif must["deviation"] or must["not-run"]:
        result = "partial"
    else:
        result = "success"
    return {
        "name": name,
        "result": result,
        "must": dict(sorted(must.items())),
        "should": dict(sorted(should.items())),
        "summary": f"{name}: {result}, {must['pass']} of {applicable} binding "
        "clauses that apply are proved",
    }
