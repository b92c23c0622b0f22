"""``llmcore doctor``: is this installation able to work, and if not, why."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from llmcore.plugins import Registered


def doctor() -> None:
    """Try everything that is installed; exit code 1 if something is wrong."""
    import llmcore
    from llmcore.cli.demo import demo_model
    from llmcore.plugins import registry

    typer.echo(f"llmcore {llmcore.__version__}, Python {platform.python_version()}")
    typer.echo(f"platform: {platform.platform()}")
    healthy = True
    for problem in registry().problems:
        healthy = False
        typer.echo(f"problem: {problem}")
    for name, backend in registry().backends.items():
        for good, line in _examine(name, backend):
            healthy &= good
            typer.echo(line)
    found = demo_model()
    typer.echo(f"demo model: {found or 'not installed (see llmcore demo)'}")
    if not healthy:
        raise typer.Exit(1)


def _examine(name: str, backend: Registered) -> Iterator[tuple[bool, str]]:
    """
    Start an engine in a process of its own, whatever is known of it already.

    Yields:
        Whether that is as it should be, and a line for people.
    """
    from llmcore.plugins import registry

    if problem := backend.problem:
        # nobody has to install every engine that there is
        good = problem.stage == "missing"
        yield good, f"{name}: cannot be used: {problem.message}"
        return
    trial = registry().try_out(name)
    if trial.untried:
        yield True, f"{name}: {trial}"
        return
    if trial.failure:
        yield False, f"{name}: cannot be used: {trial.failure}"
        return
    yield True, f"{name}: works (started in {trial.seconds:.1f} s)"
    for device in trial.devices:
        total, free = device.total / 2**30, device.free / 2**30
        yield (
            True,
            f"  {device.kind} {device.name} {device.description}: "
            f"{free:.1f} of {total:.1f} GiB free",
        )
    if trial.noise:
        yield False, f"{name}: writes to standard output: {trial.noise!r}"
