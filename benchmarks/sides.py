"""Which programs take part in `benchmarks.streams`, and how each is opened."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import environ

from attrs import field, frozen

from benchmarks.common import Side

CONTEXT_SIZE = 512
"""Tokens of each sequence, on every side."""


@frozen(kw_only=True)
class Peer:
    """Another framework: how to start its script."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(factory=dict)

    def open(self, path: str, sequences: int, threads: int) -> Side:
        """
        A new process with the model loaded, which the caller closes.

        Raises:
            SideError: It is not installed, or cannot load the model.
        """
        with ExitStack() as on_error:
            side = on_error.enter_context(Side(self.command, self.environment))
            side(
                "open",
                path=path,
                context_size=CONTEXT_SIZE,
                sequences=sequences,
                threads=threads,
            )
            on_error.pop_all()
            return side


def add_peer_arguments(parser: ArgumentParser) -> None:
    """Where the peers are installed; the environment can say it too."""
    for option, variable, what in (
        (
            "--llama-cpp-python",
            "LLAMA_CPP_PYTHON",
            "a Python that has llama-cpp-python",
        ),
        ("--cyllama-python", "CYLLAMA_PYTHON", "a Python that has cyllama"),
        ("--node", "NODE", "the program node"),
        ("--node-llama-cpp", "NODE_LLAMA_CPP", "a folder with node-llama-cpp"),
    ):
        default = "node" if option == "--node" else sys.executable
        if variable == "NODE_LLAMA_CPP":
            default = "."
        parser.add_argument(
            option, default=environ.get(variable, default), help=f"{what} (${variable})"
        )


def peers(args: Namespace) -> list[Peer]:
    """All that are known, installed or not."""
    alone = {"PYTHONPATH": "."}  # the modules of this Python are none of theirs
    return [
        Peer(
            name="llama-cpp-python",
            command=(
                args.llama_cpp_python,
                "-m",
                "benchmarks.peers.llama_cpp_python",
            ),
            environment=alone,
        ),
        Peer(
            name="cyllama",
            command=(args.cyllama_python, "-m", "benchmarks.peers.cyllama_llm"),
            environment=alone,
        ),
        Peer(
            name="node-llama-cpp",
            command=(args.node, "benchmarks/peers/node_llama_cpp.mjs"),
            environment={"NODE_LLAMA_CPP": args.node_llama_cpp},
        ),
    ]


def python_side(module: str) -> Side:
    """One of our own scripts, in the Python that runs this."""
    return Side((sys.executable, "-m", f"benchmarks.{module}"))
