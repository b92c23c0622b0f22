"""Which backend a request means, with the reason for each that it could have been."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

from llmcore.errors import (
    AmbiguousBackendError,
    BackendUnavailableError,
    LlmcoreError,
)
from llmcore.plugins.builds import find_conflict
from llmcore.plugins.gpu import gpus_of, obstacle_to
from llmcore.plugins.support import missing, require
from llmcore.plugins.values import CORE, BackendRequest, Registered, Trial, Verdict
from llmcore.values import Capability

PREFERRED = (f"{CORE}:llama_cpp", "llmcore-cyllama:cyllama")
"""What core's own policy takes if there are several, in this order."""

NEVER_AUTO = frozenset({"null", "reference"})
"""Backends that only pretend, or only explain, and must be asked for by name."""

Policy = Callable[[BackendRequest, Sequence[Registered]], Registered | None]
Try = Callable[[Registered], Trial]


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


def candidate(answer: object, candidates: Sequence[Registered]) -> Registered:
    """
    The candidate that a policy's answer names.

    Raises:
        ValueError: It names none of them.
    """
    for one in candidates:
        if answer in (one.name, one.qualified):  # may be unhashable
            return one
    names = ", ".join(one.name for one in candidates)
    raise ValueError(
        f"llmcore_select_backend must return one of {names}, got {answer!r}"
    )


def choose(
    request: BackendRequest,
    backends: Mapping[str, Registered],
    policy: Policy,
    try_out: Try,
) -> Selection:
    """
    Choose for ``"auto"``, by the application's policy, else by core's own.

    Args:
        request: What it is for.

        backends: All that are installed, by the name to ask for.

        policy: Returns one of the candidates, or None to leave it to core.

        try_out: Starts a backend in a child process; called for those only that
            nothing else speaks against.
    """
    reasons = {name: _refusal(name, backends[name], request) for name in backends}
    trials = {name: try_out(backends[name]) for name in backends if not reasons[name]}
    for name, trial in trials.items():
        reasons[name] = _refusal_after(backends[name], trial, request)
    candidates = [backends[name] for name, reason in reasons.items() if not reason]
    chosen, why = None, ""
    error: LlmcoreError | None = None
    if not candidates:
        error = BackendUnavailableError(_nothing_fits(request, reasons))
    elif chosen := policy(request, candidates):
        why = "chosen by the application's llmcore_select_backend"
    else:
        chosen, why = _core_policy(candidates, _with_gpu(request, backends, trials))
    if candidates and chosen is None:
        error = AmbiguousBackendError(_tie(candidates))
    verdicts = [
        _verdict(backends[name], reason, chosen, why, name, trials.get(name))
        for name, reason in reasons.items()
    ]
    return Selection(chosen=chosen, error=error, verdicts=tuple(verdicts))


def check(request: BackendRequest, backend: Registered, trial: Trial) -> None:
    """
    Refuse a backend that was asked for by name, if it cannot do what is asked.

    Raises:
        CapabilityError: It does not declare something.

        BackendUnavailableError: It must not, or cannot, be started here.
    """
    require(f"backend {backend.name!r}", backend.info.capabilities, request.require)
    if trial.failure and not trial.lethal:
        return  # it will raise again, here, with its cause
    reason = _lacks(backend, request) or _refusal_after(backend, trial, request)
    if reason:
        raise BackendUnavailableError(
            f"backend {backend.name!r} cannot be used: {reason}"
        )


def _verdict(
    backend: Registered,
    refusal: str,
    chosen: Registered | None,
    why: str,
    name: str,
    trial: Trial | None,
) -> Verdict:
    passed_over = why if chosen is None else f"{chosen.name} is preferred"
    return Verdict(
        name=name,
        chosen=backend is chosen,
        reason=refusal or (why if backend is chosen else passed_over),
        trial=trial,
    )


def _refusal(name: str, backend: Registered, request: BackendRequest) -> str:
    """Why a backend cannot be a candidate; empty if it may be tried."""
    if backend.name in NEVER_AUTO:
        return "only used if asked for by name"
    if backend.problem is not None:
        return backend.problem.message
    if name != backend.name:
        return f"several distributions claim the name {backend.name!r}"
    if request.format is not None and request.format not in backend.info.formats:
        reads = ", ".join(backend.info.formats) or "no files"
        return f"reads {reads}, not {request.format}"
    return _lacks(backend, request)


def _lacks(backend: Registered, request: BackendRequest) -> str:
    needed = set(request.require)
    if request.gpu not in ("auto", False):
        needed.add(Capability.GPU)
    lacking = missing(backend.info.capabilities, needed)
    return f"does not declare {lacking}" if lacking else ""


def _refusal_after(backend: Registered, trial: Trial, request: BackendRequest) -> str:
    """Why a backend that was tried cannot be a candidate; empty if it can."""
    if trial.failure:
        culprits = ", ".join(backend.info.requires) or backend.distribution
        return f"{trial.failure}: reinstall or fix {culprits}"
    # What was not tried shows its devices when it is started.
    obstacle = "" if trial.untried else obstacle_to(request.gpu, trial.devices)
    return obstacle or ("" if request.isolated else find_conflict(trial.builds))


def _with_gpu(
    request: BackendRequest,
    backends: Mapping[str, Registered],
    trials: Mapping[str, Trial],
) -> list[Registered]:
    if request.gpu is False:
        return []
    return [backends[name] for name, found in trials.items() if gpus_of(found.devices)]


def _core_policy(
    candidates: Sequence[Registered], with_gpu: Iterable[Registered]
) -> tuple[Registered | None, str]:
    if len(candidates) == 1:
        return candidates[0], "the only one that can be used"
    faster = [candidate for candidate in candidates if candidate in with_gpu]
    if len(faster) == 1:
        return faster[0], "the only one that finds a GPU"
    for name in PREFERRED:
        for candidate in faster or candidates:
            if candidate.qualified == name:
                return candidate, "preferred by core"
    return None, "one of several that can be used"


def _tie(candidates: Sequence[Registered]) -> str:
    names = ", ".join(candidate.name for candidate in candidates)
    return f"several backends can be used: {names}: ask for one of them by name"


def _nothing_fits(request: BackendRequest, reasons: Mapping[str, str]) -> str:
    wanted = f"a {request.format} file" if request.format else "backend='auto'"
    if request.gpu != "auto":
        wanted += f" and gpu={request.gpu!r}"
    if not reasons:
        return f"no backend is installed for {wanted}: install a plugin"
    because = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"no installed backend can be used for {wanted} ({because})"
