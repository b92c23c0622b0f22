"""Which backend ``"auto"`` means, with the reason for each that it could have been."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from llmcore.errors import (
    AmbiguousBackendError,
    BackendUnavailableError,
    LlmcoreError,
)
from llmcore.plugins.values import BackendRequest, Registered, Verdict

PREFERRED = "llmcore-runtime:llama_cpp"
"""What core's own policy takes if there are several."""

NEVER_AUTO = frozenset({"null"})
"""Backends that only pretend, and must be asked for by name."""

Policy = Callable[[BackendRequest, Sequence[Registered]], Registered | None]


@frozen(kw_only=True)
class Selection:
    """
    The outcome: either ``chosen`` or ``error``, and in any case the verdicts.

    Attributes:
        verdicts: One for each installed backend, in the order of their names.
    """

    chosen: Registered | None
    error: LlmcoreError | None
    verdicts: tuple[Verdict, ...]


def choose(
    request: BackendRequest, backends: Mapping[str, Registered], policy: Policy
) -> Selection:
    """
    Choose by the application's policy, else by core's own.

    Args:
        backends: All that are installed, by the name to ask for.

        policy: Returns one of the candidates, or None to leave it to core.
    """
    reasons = {name: _refusal(name, backends[name], request) for name in backends}
    candidates = [backends[name] for name, reason in reasons.items() if not reason]
    chosen, why = None, ""
    error: LlmcoreError | None = None
    if not candidates:
        error = BackendUnavailableError(_nothing_fits(request, reasons))
    elif chosen := policy(request, candidates):
        why = "chosen by the application's llmcore_select_backend"
    else:
        chosen, why = _core_policy(candidates)
    if candidates and chosen is None:
        error = AmbiguousBackendError(_tie(candidates))
    verdicts = [
        _verdict(name, backends[name], reason, chosen, why)
        for name, reason in reasons.items()
    ]
    return Selection(chosen=chosen, error=error, verdicts=tuple(verdicts))


def _verdict(
    name: str, backend: Registered, refusal: str, chosen: Registered | None, why: str
) -> Verdict:
    passed_over = why if chosen is None else f"{chosen.name} is preferred"
    return Verdict(
        name=name,
        chosen=backend is chosen,
        reason=refusal or (why if backend is chosen else passed_over),
    )


def _refusal(name: str, backend: Registered, request: BackendRequest) -> str:
    """Why a backend cannot be a candidate; empty if it can."""
    if backend.name in NEVER_AUTO:
        return "only used if asked for by name"
    if backend.problem is not None:
        return backend.problem.message
    if name != backend.name:
        return f"several distributions claim the name {backend.name!r}"
    if request.format is not None and request.format not in backend.info.formats:
        reads = ", ".join(backend.info.formats) or "no files"
        return f"reads {reads}, not {request.format}"
    return ""


def _core_policy(candidates: Sequence[Registered]) -> tuple[Registered | None, str]:
    if len(candidates) == 1:
        return candidates[0], "the only one that can be used"
    for candidate in candidates:
        if candidate.qualified == PREFERRED:
            return candidate, "built in and preferred by core"
    return None, "one of several that can be used"


def _tie(candidates: Sequence[Registered]) -> str:
    names = ", ".join(candidate.name for candidate in candidates)
    return f"several backends can be used: {names}: ask for one of them by name"


def _nothing_fits(request: BackendRequest, reasons: Mapping[str, str]) -> str:
    what = f"a {request.format} file" if request.format else "backend='auto'"
    if not reasons:
        return f"no backend is installed for {what}: install a plugin"
    because = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"no installed backend can be used for {what} ({because})"
