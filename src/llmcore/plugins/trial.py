"""
Starts a backend, or imports a plugin, in a child process, to see whether that ends
well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from llmcore.plugins.values import Trial
from llmcore.values import Device

GRACE = 5.0
"""Seconds for a child to say where it hangs, before it is killed."""

MOST = 1 << 24
"""Bytes that a child may write."""

LOOKS = 0.1
"""Seconds between two looks at how much it has written."""

SHOWN = 80
"""Characters of its output that are shown."""

REPORT = ("Fatal Python error: ", "Timeout (", "Windows fatal exception: ")
"""How the reports of `faulthandler` begin."""

# The child finds the modules that this process finds.
START = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from llmcore.plugins.trial_child import main; main(*sys.argv[1:4])"
)


def run_trial(target: str, seconds: float) -> Trial:
    """
    Start a backend and ask it for its devices, or import a plugin.

    Args:
        target: ``"module:attribute"`` of its factory, or ``"module"`` of a plugin.

        seconds: How long it may take.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return Trial(untried="this program has no Python interpreter to start")
    token = secrets.token_hex(8)
    paths = [path for path in sys.path if isinstance(path, str)]
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", START]
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            end = _run(
                [*command, token, str(seconds), target, *paths],
                out,
                err,
                deadline=start + seconds + GRACE,
            )
        except OSError as error:
            return Trial(untried=f"no child process can be started: {error}")
        took = time.monotonic() - start
        noise, _, answer = _text(out).partition(f"\n{token}")
        noise = noise.strip()[:SHOWN]
        with contextlib.suppress(ValueError, RecursionError):
            trial = read_trial(json.loads(answer), seconds=took, noise=noise)
            if trial is not None:
                return trial
        if took >= seconds:
            end = f"it gave no answer within {seconds:g} s"
        return Trial(failure=end + _last_words(_text(err)), lethal=True, seconds=took)


def read_trial(fields: Any, **more: Any) -> Trial | None:
    """What a child or a file says, after `json`; None if that is not a trial."""
    try:
        devices = tuple(Device(**device) for device in fields.pop("devices"))
        builds = tuple(fields.pop("builds"))
        return Trial(**{**fields, **more, "devices": devices, "builds": builds})
    except (LookupError, TypeError, AttributeError):
        return None


def _run(command: list[str], out: IO[bytes], err: IO[bytes], *, deadline: float) -> str:
    """Run a child to its end and say in words how it ended."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    try:
        while time.monotonic() < deadline:
            try:
                return _ending(child.wait(LOOKS))
            except subprocess.TimeoutExpired:
                if (
                    os.fstat(out.fileno()).st_size + os.fstat(err.fileno()).st_size
                    > MOST
                ):
                    return f"it wrote more than {MOST >> 20} MiB of output"
        return "it could not be interrupted"
    finally:
        _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, and what it started."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended the process with exit code {code}"
    try:
        return f"it crashed with {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST).decode("utf-8", "replace")


def _last_words(text: str) -> str:
    """
    The last line before faulthandler's report, and the innermost frame in that.

    Its format: https://docs.python.org/3/library/faulthandler.html
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = [n for n, line in enumerate(lines) if line.startswith(REPORT)]
    first = starts[0] if starts else len(lines)
    said = lines[first - 1][:SHOWN] if first else ""
    frames = [line for line in lines[first:] if line.startswith('File "')]
    words = [f"its last words were {said!r}"] if said else []
    return "".join(f", {part}" for part in [*words, *(f"in {f}" for f in frames[:1])])
