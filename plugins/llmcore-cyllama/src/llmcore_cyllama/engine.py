"""cyllama's Cython layer, made ready once, and what it does not offer."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import os
from importlib import metadata
from typing import Any

from llmcore.backends.llama_cpp import logs
from llmcore.errors import BackendUnavailableError
from llmcore_cyllama import installed_build

try:
    # The package carries no types for it: one `Any` here instead of casts everywhere.
    C: Any = importlib.import_module("cyllama.llama.llama_cpp")
except (ImportError, OSError) as error:
    raise BackendUnavailableError(
        f"the native library of {installed_build()} cannot be loaded ({error}): "
        "install the driver that it was built for, or another build of cyllama"
    ) from error


@functools.cache
def build() -> str:
    """The versions of the binding and of what it binds, in one line."""
    name = installed_build()
    return (
        f"{name} {metadata.version(name)} (llama.cpp {C.llama_version()}, "
        f"ggml {C.ggml_version()} {C.ggml_commit()})"
    )


@functools.cache
def start() -> int:
    """
    Make the engine ready, once for the life of the process; the number of the process.

    It is never freed: it is global, so another user of the library may need it.
    """
    C.set_log_callback(_receive)
    C.ggml_backend_load_all()  # in builds for a GPU each kind of device is a library
    C.llama_backend_init()
    # Native threads may still log when Python is gone: from here on nobody listens.
    atexit.register(C.disable_logging)
    return os.getpid()


def _receive(level: int, text: str) -> None:
    logs.receive(level, text.encode(errors="replace"))


def return_memory() -> None:
    """Have the C library give freed memory back, which glibc else keeps in its heap."""
    with contextlib.suppress(AttributeError, TypeError):  # others return it anyway
        ctypes.CDLL(None).malloc_trim(0)
