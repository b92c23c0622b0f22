"""
What runs in the child process of a trial: starts one backend, or imports one plugin.

Everything here must bear what the other side of the trial is about to find out: it may
crash, hang, end the process, and write wherever it likes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import sys
from operator import attrgetter

import attrs

from llmcore.plugins.builds import ggml_builds
from llmcore.plugins.values import Trial
from llmcore.plugins.wording import describe
from llmcore.spi import Backend


def main(token: str, seconds: str, target: str) -> None:
    """
    Try a target, write one line of JSON behind the token, and end the process.

    Args:
        token: What the answer starts with.

        seconds: After these it ends itself and says where it was, even if nobody is
            there any more to end it.

        target: ``"module:attribute"`` of a factory, or ``"module"`` of a plugin.
    """
    answer = os.dup(1)
    sys.argv[1:] = []
    with contextlib.suppress(ImportError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.dump_traceback_later(float(seconds), exit=True)
    try:
        found = json.dumps(attrs.asdict(_try(target)))
    except BaseException as error:
        found = json.dumps(attrs.asdict(Trial(failure=describe(error))))
    with contextlib.suppress(Exception):  # it may be another's by now
        sys.stdout.flush()
    os.write(answer, f"\n{token}{found}\n".encode())
    os._exit(0)


def _try(target: str) -> Trial:
    module_name, _, factory = target.partition(":")
    module = importlib.import_module(module_name)
    if not factory:
        return Trial()
    backend = attrgetter(factory)(module)()
    if not isinstance(backend, Backend):
        raise TypeError(f"not a llmcore.spi.Backend: {type(backend).__name__}")
    devices = tuple(backend.devices())
    builds = tuple(sorted(ggml_builds()))
    backend.close()
    return Trial(devices=devices, builds=builds)
