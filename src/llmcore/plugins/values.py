"""The small frozen values that the plugin loader and the registry speak in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from llmcore.values import BackendInfo

Stage = Literal[
    "import",
    "register",
    "validate",
    "info",
    "incompatible",
    "missing",
    "conflict",
    "slow",
    "select",
    "event",
]
"""What was being done with a plugin when the problem was found."""

FAILED: frozenset[Stage] = frozenset({"import", "register", "validate", "info"})
"""Stages that leave no backend behind to ask for its problem."""


@frozen(kw_only=True)
class PluginProblem:
    """
    One thing that is wrong with one plugin.

    Attributes:
        plugin: Name of its entry point; empty if that could not even be read.

        distribution: Normalised name of the distribution that installed it.

        stage: When it was found.

        message: What is wrong and what to do, one line.

        exception: What was raised, if anything was.
    """

    plugin: str
    distribution: str
    stage: Stage
    message: str
    exception: BaseException | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution}: {self.message}"


@frozen(kw_only=True)
class Origin:
    """Where a plugin comes from: the entry point and its distribution."""

    plugin: str
    distribution: str

    @property
    def qualified(self) -> str:
        """``"distribution:plugin"``, unique among well-formed distributions."""
        return f"{self.distribution}:{self.plugin}"

    def problem(
        self, stage: Stage, message: str, exception: BaseException | None = None
    ) -> PluginProblem:
        """A problem of this plugin."""
        return PluginProblem(
            plugin=self.plugin,
            distribution=self.distribution,
            stage=stage,
            message=message,
            exception=exception,
        )


@frozen(kw_only=True)
class Registered:
    """
    A backend that an installed plugin provides.

    Attributes:
        info: What the plugin says about it.

        distribution: Normalised name of the distribution it comes from.

        entry_point: Name of the entry point it comes from.

        problem: Why it cannot be used here, or None.
    """

    info: BackendInfo
    distribution: str
    entry_point: str
    problem: PluginProblem | None = None

    @property
    def name(self) -> str:
        """The name that applications ask for."""
        return self.info.name

    @property
    def qualified(self) -> str:
        """``"distribution:name"``, which also works if others claim the name."""
        return f"{self.distribution}:{self.info.name}"


@frozen(kw_only=True)
class BackendRequest:
    """
    What ``backend="auto"`` is to be used for.

    Attributes:
        format: Format of the model file, such as ``"gguf"``; None if there is no file
            or it is not known yet.

        path: The model file, if it is known.
    """

    format: str | None = None
    path: Path | None = None


@frozen(kw_only=True)
class Verdict:
    """Why one backend was chosen or not; a line of ``llmcore backends --explain``."""

    name: str
    chosen: bool
    reason: str


@frozen(kw_only=True)
class ResourceEvent:
    """
    A step in the life of a resource.

    Attributes:
        kind: Such as ``"model"``, ``"context"`` or ``"sequence"``.

        step: Such as ``"created"``, ``"disposed"`` or ``"failed"``.

        label: The name of the resource for people.

        id: Its number, never used twice in one process.

        parent_id: The number of what it depends on, or None.
    """

    kind: str
    step: str
    label: str
    id: int
    parent_id: int | None = None
