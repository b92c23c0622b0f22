"""The C API of llama.cpp as llama-cpp-python binds it, and what that leaves out."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import os
import sys
from typing import Any

from llmcore.backends.llama_cpp import logs

# The binding is untyped ctypes: one `Any` here instead of casts everywhere.
C: Any = importlib.import_module("llama_cpp.llama_cpp")
_utils: Any = importlib.import_module("llama_cpp._utils")
_ggml: Any = importlib.import_module("llama_cpp._ggml").libggml


_libc: Any = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)


def process_function(name: str) -> Any:
    """A function of the C library that this process runs on."""
    return _libc[name]


def return_memory() -> None:
    """
    Have the C library give freed memory back to the system.

    After the first large block was freed, glibc keeps later ones in its heap, where a
    small block above them can hold them for ever.
    """
    with contextlib.suppress(AttributeError):  # other C libraries return it anyway
        process_function("malloc_trim")(0)


def _bind(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    # Indexing makes a function object of our own; the binding's stays as it is.
    function = library[name]
    function.restype, function.argtypes = result, arguments
    return function


# The binding declares `float *` here; a plain address becomes an array much faster.
get_logits = _bind(
    C._lib, "llama_get_logits_ith", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
)
get_embedding = _bind(
    C._lib, "llama_get_embeddings_seq", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
)


def ggml(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml, which the binding loads but does not describe."""
    try:
        return _bind(_ggml, name, result, *arguments)
    except AttributeError:  # where a library does not show what it is linked to
        base = C.load_shared_library("ggml-base", C._base_path)
        return _bind(base, name, result, *arguments)


@functools.cache
def build() -> str:
    """The versions of the binding and of what it binds, in one line."""
    binding = importlib.import_module("llama_cpp").__version__
    ggml_version = ggml("ggml_version", ctypes.c_char_p)().decode()
    commit = ggml("ggml_commit", ctypes.c_char_p)().decode()
    return (
        f"llama-cpp-python {binding} (llama.cpp {C.llama_version().decode()}, "
        f"ggml {ggml_version} {commit})"
    )


@functools.cache
def start() -> int:
    """
    Make the engine ready, once for the life of the process; the number of the process.

    `llama_backend_free` is never called: it is global to the process, so freeing it
    for one `Llama` would take it from the others, and from other users of the library.
    """
    logs.install(C)
    C.llama_backend_init()
    atexit.register(_leave)
    return os.getpid()


def _leave() -> None:
    # Python is about to go, and native threads may still log: from here on lines go to
    # a C function that outlives it. `abs(level)` ignores the arguments that follow.
    logs.uninstall(C, process_function("abs"))
    # The binding opens these at import and leaves a ResourceWarning for each.
    for name in ("outnull_file", "errnull_file"):
        getattr(_utils, name).close()
