"""
The fixtures of the suite. Registered by the plugin only while it tests a backend, so
that their short names are in nobody's way.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llmcore import BackendInfo, Context, Llama, Model, Sequence
from llmcore.lifecycle import collect_forgotten
from llmcore_conformance.inflight import RunningGeneration
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.plugin import current_run
from llmcore_conformance.target import Target

CONTEXT_SIZE = 256
"""Tokens that the sequence of the `context` fixture holds."""

RunInSubprocess = Callable[[str], "subprocess.CompletedProcess[str]"]
StartGeneration = Callable[[Sequence], RunningGeneration]


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    """The backend under test and its model file; `Target.open` makes an instance."""
    return current_run(pytestconfig).subject.target


@pytest.fixture(scope="session")
def patience(pytestconfig: pytest.Config) -> float:
    """Seconds after which a wait counts as a hang."""
    return float(pytestconfig.getoption("--llmcore-patience"))


@pytest.fixture
def backend_info(target: Target) -> BackendInfo:
    """What the plugin declares."""
    return target.describe()


@pytest.fixture
def ledger(patience: float) -> SeamLedger:
    """The record of what happens at the seam of `llama`."""
    return SeamLedger(patience)


@pytest.fixture
def llama(target: Target, ledger: SeamLedger, patience: float) -> Iterator[Llama]:
    """A new instance of the engine; its seam is recorded in `ledger`."""
    llama = target.open(ledger)
    yield llama
    with suppress(Exception):  # a test judges the subject, cleaning up does not
        llama.dispose(timeout=patience)
    collect_forgotten()  # what a test dropped is its own affair, not the next one's


@pytest.fixture
def model(target: Target, llama: Llama) -> Model:
    """The model under test."""
    return target.load(llama)


@pytest.fixture
def embedding_model(pytestconfig: pytest.Config, llama: Llama) -> Model:
    """The model for embeddings; often the one under test."""
    return current_run(pytestconfig).subject.embedder.load(llama)


@pytest.fixture
def context(model: Model) -> Context:
    """A context with one sequence of `CONTEXT_SIZE` tokens."""
    return model.create_context(context_size=CONTEXT_SIZE, threads=1)


@pytest.fixture
def sequence(context: Context) -> Sequence:
    """The sequence of `context`."""
    return context.get_sequence()


@pytest.fixture
def prompt_tokens(model: Model) -> list[int]:
    """A short prompt; at least four tokens."""
    return model.tokenize("Once upon a time there was", add_bos=model.info.add_bos)


@pytest.fixture
def running_generation(
    prompt_tokens: list[int], patience: float
) -> Iterator[StartGeneration]:
    """``running_generation(sequence)`` reads a long stream in a thread of its own."""
    started: list[RunningGeneration] = []

    def start(sequence: Sequence) -> RunningGeneration:
        started.append(RunningGeneration(sequence, prompt_tokens, patience=patience))
        return started[-1]

    yield start
    for generation in started:
        generation.stop()


@pytest.fixture
def run_in_subprocess(
    target: Target, tmp_path: Path, patience: float
) -> RunInSubprocess:
    """
    ``run_in_subprocess(source)`` runs a program in which ``target`` is the `Target`.
    """

    def run(source: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", target.source + source],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * patience,
            check=False,
        )

    return run
