"""The small frozen values that the plugin loader and the registry speak in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from attrs import field, frozen
from attrs.validators import deep_iterable, instance_of, matches_re

from llmcore.params.validators import one_of
from llmcore.plugins.gpu import GPUS, Gpu, names_of
from llmcore.values import BackendInfo, Capability, Device

CORE = "llmcore-runtime"
"""The distribution of llmcore itself."""

Stage = Literal[
    "import",
    "register",
    "validate",
    "info",
    "incompatible",
    "missing",
    "conflict",
    "source",
    "slow",
    "noise",
    "select",
    "event",
]
"""What was being done with a plugin when the problem was found."""

SCHEMES = frozenset({"file", "hf", "path"})
"""Schemes that are core's own, or that nobody should take for another thing."""

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
class SourceInfo:
    """
    What a plugin says about a scheme of model sources.

    Attributes:
        scheme: What stands before the colon, such as ``"s3"``: two or more lower-case
            letters, digits, ``+``, ``-`` or ``.``, the first a letter.

        factory: ``"module:attribute"`` of what makes the `llmcore.sources.ModelSource`,
            called without arguments at first use.

        summary: What it fetches from, for people, in one line.
    """

    scheme: str = field(validator=matches_re(r"[a-z][a-z0-9+.-]+"))
    factory: str = field(validator=matches_re(r"[\w.]+:[\w.]+"))
    summary: str = field(default="", validator=instance_of(str))


@frozen(kw_only=True)
class RegisteredSource:
    """A scheme of model sources that an installed plugin adds, and which plugin."""

    info: SourceInfo
    origin: Origin


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


def _capabilities(wanted: Iterable[Capability]) -> frozenset[Capability]:
    # A capability is a string, too, and one alone is easily meant.
    return frozenset(map(Capability, [wanted] if isinstance(wanted, str) else wanted))


@frozen(kw_only=True)
class BackendRequest:
    """
    What a backend is to be used for.

    Attributes:
        backend: Its name, its qualified name, or ``"auto"`` for the best one.

        gpu: The way to a GPU that it must have; ``"auto"`` for any or none, False if
            no GPU is to be used.

        require: What it must declare.

        format: Format of the model file, such as ``"gguf"``; None if there is no file
            or it is not known yet.

        path: The model file, if it is known.

        isolated: It will run in a process of its own.
    """

    backend: str = "auto"
    gpu: Gpu = field(default="auto", validator=one_of(*GPUS))
    require: frozenset[Capability] = field(default=(), converter=_capabilities)
    format: str | None = None
    path: Path | None = None
    isolated: bool = False


def _devices(instance: object, attribute: object, devices: Iterable[object]) -> None:
    for device in devices:
        if not (
            isinstance(device, Device)
            and all(isinstance(text, str) for text in (device.name, device.kind))
            and all(isinstance(size, int) for size in (device.total, device.free))
        ):
            raise TypeError(f"devices() must return valid Device objects: {device!r}")


@frozen(kw_only=True)
class Trial:
    """
    What came of starting a backend in a process of its own.

    Attributes:
        failure: Why it cannot be used; empty if nothing speaks against it.

        lethal: It crashed or hung, so this process must not even try.

        devices: What it found.

        builds: Folders of the ggml and llama libraries that it loaded.

        noise: Beginning of what it wrote to standard output, which is not its own.

        seconds: How long that took.

        untried: Why it was not started at all; empty if it was.

        remembered: It was done by an earlier process.
    """

    failure: str = field(default="", validator=instance_of(str))
    lethal: bool = field(default=False, validator=instance_of(bool))
    devices: tuple[Device, ...] = field(default=(), validator=_devices)
    builds: tuple[str, ...] = field(
        default=(), validator=deep_iterable(instance_of(str))
    )
    noise: str = field(default="", validator=instance_of(str))
    seconds: float = field(default=0.0, validator=instance_of(float))
    untried: str = field(default="", validator=instance_of(str))
    remembered: bool = field(default=False, validator=instance_of(bool))

    def __str__(self) -> str:
        if self.untried:
            return f"not tried: {self.untried}"
        when = "earlier" if self.remembered else f"in {self.seconds:.1f} s"
        return f"tried {when}: {'failed' if self.failure else names_of(self.devices)}"


@frozen(kw_only=True)
class Verdict:
    """
    Why one backend was chosen or not; a line of ``llmcore backends --explain``.

    Attributes:
        trial: What came of starting it; None if it was not worth that.
    """

    name: str
    chosen: bool
    reason: str
    trial: Trial | None = None


@frozen(kw_only=True)
class ResourceEvent:
    """
    A step in the life of a resource.

    Attributes:
        kind: Such as ``"model"``, ``"context"`` or ``"sequence"``.

        step: Such as ``"created"``, ``"disposing"``, ``"disposed"`` or ``"failed"``.

        label: The name of the resource for people.

        id: Its number, never used twice in one process.

        parent_id: The number of what it depends on, or None.
    """

    kind: str
    step: str
    label: str
    id: int
    parent_id: int | None = None
