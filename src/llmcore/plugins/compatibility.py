"""Whether a backend can be used here, found out without importing its engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from llmcore.plugins.values import CORE, Origin, PluginProblem
from llmcore.values import SPEC_VERSION, BackendInfo

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def find_obstacle(info: BackendInfo, origin: Origin) -> PluginProblem | None:
    """
    What stands in the way of using a backend, or None.

    Returns:
        A problem with stage ``"incompatible"``, or ``"missing"`` if all that is wrong
        is that a requirement is not installed (as an extra that nobody asked for).

    Raises:
        ValueError: ``spec`` or one of ``requires`` is malformed.
    """
    return _check_spec(info, origin) or _check_requires(info, origin)


def _check_spec(info: BackendInfo, origin: Origin) -> PluginProblem | None:
    theirs, ours = _version(info.spec), _version(SPEC_VERSION)
    if theirs[0] == ours[0] and theirs[1] <= ours[1]:
        return None
    upgrade = CORE if theirs > ours else origin.distribution
    return origin.problem(
        "incompatible",
        f"backend {info.name!r} was written for spec {info.spec} and this core "
        f"implements {SPEC_VERSION}: pip install --upgrade {upgrade}",
    )


def _version(spec: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", spec)
    if match is None:
        raise ValueError(f"spec must look like '1.0', got {spec!r}")
    return int(match[1]), int(match[2])


def _check_requires(info: BackendInfo, origin: Origin) -> PluginProblem | None:
    if not info.requires:
        return None
    from packaging.requirements import Requirement  # only if there is something to do

    here = [
        requirement
        for requirement in map(Requirement, info.requires)
        if requirement.marker is None or requirement.marker.evaluate()
    ]
    unmet = [(r, installed) for r in here if not _met_by(r, installed := _installed(r))]
    if not unmet:
        return None
    wrong = any(installed for _, installed in unmet)
    needs = ", ".join(f"{r} ({installed or 'not installed'})" for r, installed in unmet)
    return origin.problem(
        "incompatible" if wrong else "missing",
        f"backend {info.name!r} needs {needs}: "
        f"pip install {_what_to_install(here, origin.distribution)}",
    )


def distribution_of(requirement: str) -> str:
    """The name of the distribution that a requirement string asks for."""
    from packaging.requirements import Requirement

    return canonicalize_name(Requirement(requirement).name)


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _met_by(requirement: Requirement, version: str | None) -> bool:
    # whoever installed a pre-release wants it used
    return version is not None and requirement.specifier.contains(
        version, prereleases=True
    )


def _what_to_install(needed: Sequence[Requirement], distribution: str) -> str:
    """The smallest extra of the distribution that brings it all, or the parts."""
    extras = _extras(distribution)
    wanted = {canonicalize_name(requirement.name) for requirement in needed}
    fitting = [extra for extra, names in extras.items() if wanted <= names]
    if fitting:
        smallest = min(fitting, key=lambda extra: len(extras[extra]))
        return f"'{distribution}[{smallest}]'"
    return " ".join(f"'{requirement}'" for requirement in needed)


def _extras(distribution: str) -> dict[str, set[str]]:
    """What each extra of a distribution brings."""
    from packaging.requirements import Requirement

    brings: dict[str, set[str]] = {
        extra: set()
        for extra in metadata.metadata(distribution).get_all("Provides-Extra") or ()
    }
    for requirement in map(Requirement, metadata.requires(distribution) or ()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        for extra, names in brings.items():
            if marker.evaluate({"extra": extra}):
                names.add(canonicalize_name(requirement.name))
    return brings
