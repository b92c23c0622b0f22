"""
The C functions of ctransformers, and what they leave out: limits, and an owner.

The Python package is never imported. It brings a downloader, and its `LLM` frees the
native model in `__del__`; only the shared library inside it is wanted.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import mmap
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llmcore.errors import BackendUnavailableError, InsufficientMemoryError

MOST_HANDLES = 28
"""
How many may live at once: each takes up to two of the 64 contexts that the library has
for all, a load and an evaluation take more for a while, and it crashes without one.
"""

MOST_MEMORY = 1 << 39
"""Bytes; with twice as many it ends the process instead of trying to get them."""


class _Config(ctypes.Structure):
    """``struct Config`` of ``models/llm.h``."""

    _fields_ = (
        ("context_length", ctypes.c_int),
        ("gpu_layers", ctypes.c_int),
        ("mmap", ctypes.c_bool),
        ("mlock", ctypes.c_bool),
    )


_INTS = ctypes.POINTER(ctypes.c_int)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "create": (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, _Config),
    "delete": (None, ctypes.c_void_p),
    "tokenize": (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool, _INTS),
    "batch_eval": (ctypes.c_bool, ctypes.c_void_p, _INTS, *[ctypes.c_int] * 4),
    "logits_data": (ctypes.c_void_p, ctypes.c_void_p),
    "logits_size": (ctypes.c_int, ctypes.c_void_p),
}


class Handle:
    """
    A native model with its one cache; lives until `close`, which its owner calls once.

    Calls of one handle must not overlap, except `tokenize` with itself; evaluations
    must not overlap in the whole process.

    Args:
        path: A file that was checked: the library crashes on others.

        kind: The model type, in the library's words.

        context_size: Tokens that the cache holds, where the file does not say it.

        needs: Bytes that the library will allocate; it ends the process if it cannot.

        mapped: Map the file instead of reading it, where the model type can.

    Raises:
        InsufficientMemoryError: For lack of memory, or of the library's contexts.

        OSError: The library could not read the file after all.
    """

    def __init__(
        self, path: Path, kind: str, *, context_size: int, needs: int, mapped: bool
    ) -> None:
        self._library = library()
        with _loading:
            if len(_living) >= MOST_HANDLES:
                raise InsufficientMemoryError(
                    f"ctransformers holds at most {MOST_HANDLES} models and contexts "
                    "in one process: dispose one of them"
                )
            if not _available(needs):
                raise InsufficientMemoryError(
                    f"{str(path)!r} with context_size={context_size} needs {needs} "
                    "bytes, which the system does not give: make it smaller, or free "
                    "some memory"
                )
            config = _Config(context_size, 0, mapped, False)
            address = self._library.create(os.fsencode(path), kind.encode(), config)
            if not address:
                raise OSError(f"ctransformers did not load it as {kind!r}")
            _living.add(address)
        self._address: int = address

    def tokenize(self, text: bytes) -> list[int]:
        """The tokens of a text without NUL, without a begin token."""
        tokens = (ctypes.c_int * (4 * len(text) + 8))()
        count = self._library.tokenize(self._address, text, False, tokens)
        return tokens[:count]

    def evaluate(
        self, tokens: Sequence[int], position: int, *, at_once: int, threads: int
    ) -> bool:
        """Evaluate tokens from a position on, some at once; False if it failed."""
        count = len(tokens)
        done: bool = self._library.batch_eval(
            self._address,
            (ctypes.c_int * count)(*tokens),
            count,
            position,
            at_once,
            threads,
        )
        return done

    def logits(self) -> Any:
        """Those of the last token, as a C array that the next evaluation overwrites."""
        size = self._library.logits_size(self._address)
        address = self._library.logits_data(self._address)
        return (ctypes.c_float * size).from_address(address)

    def close(self) -> None:
        """Free it; nothing else may be called any more."""
        address = self._address
        del self._address
        with _loading:
            _living.discard(address)
            self._library.delete(address)
        _return_memory()


_loading = threading.Lock()
_living: set[int] = set()


def _available(size: int) -> bool:
    """Whether the system would give that much memory now."""
    if size > MOST_MEMORY:
        return False
    try:
        mmap.mmap(-1, max(size, 1)).close()
    except OSError:
        return False
    return True


def _return_memory() -> None:
    """Have glibc give freed memory back to the system; others do by themselves."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


# -- finding the library ---------------------------------------------------------------


@functools.cache
def build() -> str:
    """The version of the library and which of its builds is used."""
    return f"ctransformers {metadata.version('ctransformers')} ({_path().parent.name})"


@functools.cache
def library() -> Any:
    """
    The functions by their names without ``ctransformers_llm_``; loaded once.

    Raises:
        BackendUnavailableError: There is no build for this machine, or it is broken.
    """
    try:
        loaded = ctypes.CDLL(str(_path()))
    except OSError as error:
        raise BackendUnavailableError(
            f"the library of ctransformers cannot be loaded: {error}"
        ) from error
    functions = SimpleNamespace()
    for name, (result, *arguments) in _SIGNATURES.items():
        function = loaded[f"ctransformers_llm_{name}"]
        function.restype, function.argtypes = result, arguments
        setattr(functions, name, function)
    return functions


@functools.cache
def _path() -> Path:
    spec = importlib.util.find_spec("ctransformers")
    folders = [Path(f) for f in (spec and spec.submodule_search_locations) or ()]
    name = {"win32": "ctransformers.dll", "darwin": "libctransformers.dylib"}.get(
        sys.platform, "libctransformers.so"
    )
    for folder in folders:
        for variant in _variants():
            path = folder / "lib" / variant / name
            if path.is_file():
                return path
    raise BackendUnavailableError(
        "ctransformers has no library for this machine: build it by "
        "pip install ctransformers --no-binary ctransformers"
    )


def _variants() -> Iterator[str]:
    """Builds that this processor can run, the best first; one made here is the best."""
    # NumPy knows what the processor can, on every system.
    numpy: Any = importlib.import_module("numpy._core._multiarray_umath")
    has = numpy.__cpu_features__
    yield "local"
    if has.get("AVX2") and has.get("FMA3") and has.get("F16C"):
        yield "avx2"
    if has.get("AVX") and has.get("F16C"):
        yield "avx"
    yield "basic"
