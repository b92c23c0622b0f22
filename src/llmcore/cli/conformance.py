"""``llmcore conformance``: does a backend keep to the spec, even if it crashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

PACKAGE = "llmcore-conformance"

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="From 'llmcore backends', or module:attr.")
]
ModelFile = Annotated[
    Path | None, typer.Option(help="A model file; a tiny one is made if not given.")
]
ReportFile = Annotated[Path | None, typer.Option(help="Write the report here (JSON).")]
Profile = Annotated[
    list[str] | None,
    typer.Option(help="Only this profile, such as core; may be given several times."),
]
Clause = Annotated[
    list[str] | None,
    typer.Option(help="Only these clauses, such as 'dispose.*'; the same."),
]
Deviations = Annotated[
    Path | None, typer.Option(help="The tests known to fail, with reasons (TOML).")
]
Spec = Annotated[
    str | None,
    typer.Option(help="A version, or a path: judge by that edition of the spec."),
]
Isolation = Annotated[
    str | None, typer.Option(help="'process' runs the engine in one of its own.")
]
Limit = Annotated[
    float, typer.Option(min=1.0, help="Seconds after which a test counts as hanging.")
]


def conformance(
    name: Name,
    model: ModelFile = None,
    report: ReportFile = None,
    profile: Profile = None,
    clause: Clause = None,
    deviations: Deviations = None,
    spec: Spec = None,
    isolation: Isolation = None,
    limit: Limit = 300.0,
) -> None:
    """
    Test a backend against the spec. Exit code 0 if it conforms, 1 if not.

    A test in which the engine crashes or hangs is reported, and the others are run.
    """
    if find_spec("llmcore_conformance") is None:
        typer.echo(
            f"the suite is not installed: run 'pip install {PACKAGE}' and try again",
            err=True,
        )
        raise typer.Exit(2)
    given = {
        "backend": name,
        "model": model,
        "deviations": deviations,
        "spec": spec,
        "isolation": isolation,
    }
    options = [f"--llmcore-{key}={value}" for key, value in given.items() if value]
    options += [f"--llmcore-profile={wanted}" for wanted in profile or ()]
    options += [f"--llmcore-clause={pattern}" for pattern in clause or ()]
    found = _run(options, limit)
    if report is not None:
        report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    _judge(found)


def _run(options: list[str], limit: float) -> dict[str, Any]:
    from llmcore_conformance.guarded import SuiteError, UsageError, run_guarded

    try:
        with _progress() as tell:
            return run_guarded(options, limit=limit, tell=tell)
    except SuiteError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


def _judge(report: dict[str, Any]) -> None:
    from llmcore_conformance.summary import conforms, summarise

    for line in summarise(report):
        typer.echo(line)
    if not conforms(report):
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Says on stderr what crashed, at once; shows a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("tests", total=None)

        def tell(line: dict[str, Any]) -> None:
            if line["step"] == "tests":
                done = bar.tasks[task].completed
                bar.update(task, total=done + line["count"])
            elif line["step"] == "end":
                bar.advance(task)
            elif line["step"] == "crash":
                bar.advance(task)
                typer.echo(f"crash in {line['test']}: {line['how']}", err=True)

        yield tell
