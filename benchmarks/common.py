"""Sides that run as child processes, and what is made of their numbers."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, cast

from attrs import frozen

ROOT = Path(__file__).parents[1]
LONGEST = 60.0
"""Seconds after which a job that gives no answer counts as hanging."""


class SideError(Exception):
    """A side did not do what it was asked for; the text says how it ended."""


class Side:
    """
    A child process that answers jobs, see `benchmarks.child`; a context manager.

    Each side has a process of its own: an engine's threads spin for a while after each
    step, and less long when a process has more of them than cores.

    Args:
        command: Starts it.

        environment: Variables for it, over those of this process.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            self._errors.close()
            raise SideError(f"{command[0]} does not start: {error.strerror}") from error
        self._jobs = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)

    def __call__(self, do: str, **job: Any) -> Any:
        """
        Let it do a job.

        Raises:
            SideError: It refused, crashed or hangs.
        """
        guard = threading.Timer(LONGEST, self._process.kill)
        guard.start()
        try:
            self._jobs.write(json.dumps({"do": do, **job}) + "\n")
            self._jobs.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        finally:
            guard.cancel()
        if not line:
            raise SideError(self._ending())
        answer = json.loads(line)
        if "error" in answer:
            first, *_ = answer["error"].splitlines()[0].split(". ")
            raise SideError(f"refuses: {first}")
        return answer["answer"]

    def _ending(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return f"hangs: no answer in {LONGEST:.0f} s"
        if code < 0:
            return f"crashes: {signal.Signals(-code).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "nothing")
        return f"ends with code {code}: {said.strip()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(BrokenPipeError):  # it may have ended already
            self._jobs.close()  # its loop ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()


@frozen(kw_only=True)
class Compared:
    """
    Two sides in interleaved pairs.

    Attributes:
        ours: The median of the first side, in its unit.

        theirs: The median of the second.

        ratios: First by second, of each pair.
    """

    ours: float
    theirs: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> str:
        """Median and quartiles of the ratios, for people."""
        if len(self.ratios) < 2:
            return f"{self.ratios[0]:.3f}"
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def pairs(
    ours: Callable[[], float], theirs: Callable[[], float], count: int
) -> Compared:
    """Run both once to warm up, then ``count`` times each, in alternating order."""
    ours(), theirs()
    first, second = [], []
    for number in range(count):
        if number % 2:
            first.append(ours())
            second.append(theirs())
        else:
            second.append(theirs())
            first.append(ours())
    return Compared(
        ours=statistics.median(first),
        theirs=statistics.median(second),
        ratios=tuple(a / b for a, b in zip(first, second, strict=True)),
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that is easy to read as it is and as Markdown."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines
    )
