"""``llmcore doctor``: is this installation able to work, and if not, why."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import typer

from llmcore.errors import LlmcoreError


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
    for name in registry().backends:
        try:
            for line in _try_backend(name):
                typer.echo(line)
        except LlmcoreError as error:
            healthy = False
            typer.echo(f"{name}: cannot be used: {error}")
    found = demo_model()
    typer.echo(f"demo model: {found or 'not installed (see llmcore demo)'}")
    if not healthy:
        raise typer.Exit(1)


def _try_backend(name: str) -> Iterator[str]:
    """Start an engine and ask it for its devices."""
    from llmcore.llama import get_llama

    with get_llama(name) as llama:
        yield f"{name}: works"
        for device in llama.devices():
            total, free = device.total / 2**30, device.free / 2**30
            yield (
                f"  {device.kind} {device.name} {device.description}: "
                f"{free:.1f} of {total:.1f} GiB free"
            )
