"""Which plugins are installed and wanted; imports none of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import (
    Distribution,
    EntryPoint,
    MetadataPathFinder,
    distributions,
    entry_points,
)

from attrs import field, frozen
from packaging.utils import canonicalize_name

from llmcore.plugins.values import Origin, PluginProblem
from llmcore.plugins.wording import describe

GROUP = "llmcore.backends"
ALLOW = "LLMCORE_PLUGINS"
DENY = "LLMCORE_DISABLED_PLUGINS"


@frozen
class Discovery:
    """The entry points to load in order, those switched off, and what went wrong."""

    wanted: list[tuple[Origin, EntryPoint]] = field(factory=list)
    disabled: list[tuple[Origin, str]] = field(factory=list)
    problems: list[PluginProblem] = field(factory=list)


def discover() -> Discovery:
    """
    Find the entry points, in the order of their names and then their distributions.

    ``LLMCORE_PLUGINS`` and ``LLMCORE_DISABLED_PLUGINS`` are lists, separated by commas,
    of entry point names or ``"distribution:name"``. The first, if set, allows only
    those it names (none, if it is empty); the second denies those it names.
    """
    found = Discovery()
    points = _entry_points(found.problems)
    pairs = [(_origin(point), point) for point in points]
    pairs.sort(key=lambda pair: (pair[0].plugin, pair[0].distribution))
    for origin, point in pairs:
        if variable := _disabled_by(origin):
            found.disabled.append((origin, variable))
        else:
            found.wanted.append((origin, point))
    return found


def forget_what_was_found() -> None:
    """Make Python look at the disk again for modules and distributions."""
    importlib.invalidate_caches()
    MetadataPathFinder().invalidate_caches()  # before 3.13 the line above does not


def _entry_points(problems: list[PluginProblem]) -> Sequence[EntryPoint]:
    try:
        return tuple(entry_points(group=GROUP))
    except Exception:
        # one unreadable entry_points.txt anywhere makes the whole call fail
        return tuple(_readable_entry_points(problems))


def _readable_entry_points(problems: list[PluginProblem]) -> Iterator[EntryPoint]:
    seen: set[str] = set()
    for distribution in distributions():
        name = _name_of(distribution)
        if name in seen:  # shadowed by one earlier on the path
            continue
        seen.add(name)
        try:
            yield from distribution.entry_points.select(group=GROUP)
        except Exception as error:
            message = f"cannot read its entry points, reinstall it: {describe(error)}"
            origin = Origin(plugin="", distribution=name)
            problems.append(origin.problem("import", message, error))


def _origin(point: EntryPoint) -> Origin:
    return Origin(plugin=point.name, distribution=_name_of(point.dist))


def _name_of(distribution: Distribution | None) -> str:
    """The normalised name, or ``"unknown"`` if its metadata is damaged."""
    try:
        return canonicalize_name(distribution.metadata["Name"])  # type: ignore[union-attr]
    except Exception:
        return "unknown"


def _disabled_by(origin: Origin) -> str | None:
    """The variable that switches a plugin off, or None."""
    names = {origin.plugin, origin.qualified}
    allowed = os.environ.get(ALLOW)
    if allowed is not None and names.isdisjoint(_listed(allowed)):
        return ALLOW
    return None if names.isdisjoint(_listed(os.environ.get(DENY, ""))) else DENY


def _listed(value: str) -> set[str]:
    return {name.strip() for name in value.split(",")} - {""}
