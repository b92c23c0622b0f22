"""The trials of backends: each is made once, until something it depends on changes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata
from typing import Literal

from llmcore.errors import ParameterError
from llmcore.plugins.memory import Memory, users_memory
from llmcore.plugins.trial import run_trial
from llmcore.plugins.values import Trial

SECONDS = "LLMCORE_TRIAL_SECONDS"
"""The environment variable with the longest time for a trial; 0 means no trials."""

DEFAULT_SECONDS = 30.0

Believe = Literal["file", "process", "nothing"]

DRIVERS = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_", "VK_", "LD_", "DYLD_")
"""Beginnings of environment variables that choose drivers and devices."""


class Trials:
    """
    Runs and remembers trials; lives as long as its registry. Any thread.

    Args:
        memory: What earlier processes found; by default those of this user.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or users_memory()
        self._known: dict[str, Trial] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._taking_turns = threading.Lock()

    def of(
        self, target: str, distributions: Iterable[str], *, believe: Believe = "file"
    ) -> Trial:
        """
        The trial of a target: a known one that is believed, else a new one.

        Args:
            target: As for `run_trial`.

            distributions: Those it depends on, itself included.

            believe: ``"file"`` also takes what an earlier process remembers,
                ``"process"`` what this one knows itself, ``"nothing"`` tries again.

        Raises:
            ParameterError: ``LLMCORE_TRIAL_SECONDS`` is not a number of seconds.
        """
        seconds = _seconds()
        if seconds == 0:
            return Trial(untried=f"{SECONDS}=0")
        key = _key(target, distributions)
        with self._taking_turns:
            turn = self._turns[key]
        with turn:
            trial = self._known.get(key)
            if trial is None and believe == "file":
                trial = self._memory.recall(key)
            if trial is None or not _believed(trial, believe):
                trial = run_trial(target, seconds)
                if not trial.untried:
                    self._memory.keep(key, trial)
            self._known[key] = trial
            return trial


def _believed(trial: Trial, believe: Believe) -> bool:
    return believe == "file" or (believe == "process" and not trial.remembered)


def _seconds() -> float:
    text = os.environ.get(SECONDS, "")
    try:
        seconds = float(text or DEFAULT_SECONDS)
        if not 0 <= seconds <= threading.TIMEOUT_MAX:
            raise ValueError
    except ValueError:
        raise ParameterError(
            f"{SECONDS} must be a number of seconds, 0 for no trials, got {text!r}"
        ) from None
    return seconds


def _key(target: str, distributions: Iterable[str]) -> str:
    """Changes whenever the outcome of a trial could change, as far as one can see."""
    environment = {k: v for k, v in os.environ.items() if k.startswith(DRIVERS)}
    facts = [
        target,
        sorted(map(_installation, distributions)),
        [sys.version, sys.executable, sys.platform],
        [platform.release(), platform.machine()],
        sorted(environment.items()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _installation(name: str) -> tuple[str, str, str, str]:
    """One installation of a distribution: built again, it has another record."""
    try:
        found = metadata.distribution(name)
        place = str(found.locate_file(""))
        return name, found.version, place, found.read_text("RECORD") or ""
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return name, "", "", ""
