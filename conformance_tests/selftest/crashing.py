"""
Backends that take the process down, for real: ``--llmcore-backend=crashing:NAME``.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading

from attrs import evolve

from llmcore.backends.null import INFO


def segfault(*args: object) -> None:
    ctypes.string_at(0)


def abort(*args: object) -> None:
    os.write(2, b"GGML_ASSERT(n_tokens > 0) failed\n")
    os.abort()


def leave(*args: object) -> None:
    os._exit(0)


def hang(sequence: int, start: int, end: int | None = None) -> bool:
    if end is None:
        threading.Event().wait()
    return True


DEATHS = {
    "save_state": segfault,
    "shift": abort,
    "embedding": leave,
    "remove": hang,
}
"""What an operation of a context does instead."""

IN_TESTS = evolve(INFO, factory="crashing:in_tests")
"""Dies in four operations."""

AT_LOAD = evolve(INFO, factory="crashing:at_load")
"""Dies of every model."""

AT_EXIT = evolve(INFO, factory="crashing:at_exit")
"""Works, and takes the process down at its end."""


def in_tests() -> object:
    from llmcore.backends.null.backend import NullBackend

    class Crashing(NullBackend):
        def load_model(self, path, params, progress):
            model = super().load_model(path, params, progress)
            create = model.create_context

            def create_context(wanted):
                context = create(wanted)
                for name, death in DEATHS.items():
                    setattr(context, name, death)
                return context

            model.create_context = create_context
            return model

    return Crashing()


def at_load() -> object:
    from llmcore.backends.null.backend import NullBackend

    backend = NullBackend()
    backend.load_model = segfault
    return backend


def at_exit() -> object:
    from llmcore.backends.null.backend import NullBackend

    if "pytest" in sys.modules:  # and not in the programs that the tests start
        atexit.register(segfault)
    return NullBackend()
