"""
The ``llmcore`` command. Each command is a module of its own and imports what it needs
when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys

import typer

from llmcore.cli.backends import backends
from llmcore.cli.chat import chat
from llmcore.cli.compare import compare
from llmcore.cli.conformance import conformance
from llmcore.cli.demo import demo
from llmcore.cli.doctor import doctor
from llmcore.cli.estimate import estimate
from llmcore.cli.fetch import fetch
from llmcore.cli.inspect import inspect
from llmcore.cli.ps import ps
from llmcore.cli.recommend import recommend
from llmcore.cli.run import run
from llmcore.errors import LlmcoreError

app = typer.Typer(
    name="llmcore",
    help="Run local language models through any engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    *(run, chat, fetch, inspect, estimate, recommend, ps),
    *(backends, compare, conformance, doctor, demo),
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; errors of llmcore are one line, Ctrl-C is exit code 130."""
    try:
        app()
    except LlmcoreError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:  # an option out of range
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
