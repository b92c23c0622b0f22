"""Mutants of exit.md: what goes wrong at the end of the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from llmcore.lifecycle import reaper
from llmcore.lifecycle.node import Node
from llmcore.lifecycle.states import State
from llmcore.lifecycle.tree import NODES
from mutants import mutant

Patch = pytest.MonkeyPatch


def before_exit(patch: Patch, first: Callable[[], object]) -> None:
    """Do something bad before the exit hook does its work."""
    right = reaper._dispose_everything

    def hook():
        try:
            first()
        finally:
            right()

    patch.setattr(reaper, "_dispose_everything", hook)


@mutant(kills="exit.clean")
def complains_of_open_chats(patch: Patch) -> None:
    """The exit hook raises if a chat was left open."""

    def complain():
        if any(node.kind == "chat" for node in NODES.values()):
            raise RuntimeError("a chat was left open")

    before_exit(patch, complain)


@mutant(kills="exit.frees")
def leaves_everything(patch: Patch) -> None:
    """The exit hook does nothing."""
    patch.setattr(reaper, "_dispose_everything", lambda: None)


@mutant(kills="exit.suspended-stream")
def complains_of_open_streams(patch: Patch) -> None:
    """The exit hook raises if a stream is suspended."""

    def complain():
        nodes = list(NODES.values())
        if any(n.operations for n in nodes) and not any(n.users for n in nodes):
            raise RuntimeError("a stream was left open")

    before_exit(patch, complain)


@mutant(kills="exit.in-use")
def crashes_under_a_daemon_thread(patch: Patch) -> None:
    """The exit hook frees what a thread still uses, which is a crash."""

    def crash():
        if any(node.users for node in NODES.values()):
            os.abort()

    before_exit(patch, crash)


@mutant(kills="exit.code")
def loses_the_code(patch: Patch) -> None:
    """A program that calls sys.exit ends with 0."""
    leave = sys.exit
    patch.setattr(sys, "exit", lambda code=None: leave(0))


@mutant(kills="exit.exception")
def adds_a_word(patch: Patch) -> None:
    """The exit hook talks about an unhandled exception."""

    def talk():
        if getattr(sys, "last_value", None) is not None:
            print("llmcore: cleaning up", file=sys.stderr)

    before_exit(patch, talk)


@mutant(kills="exit.fork")
def uses_handles_of_the_parent(patch: Patch) -> None:
    """A forked child may call the engine."""
    right = Node.refuse
    patch.setattr(
        Node,
        "refuse",
        lambda self: None if self.state is State.FORKED else right(self),
    )
