"""
Factories of real llama.cpp engines that go wrong, for children: imported there.

Each works until it is to evaluate `BAD`, a token that no plain text has.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.llama_cpp.context import LlamaCppContext
from llmcore.backends.llama_cpp.native import C, ggml
from llmcore.isolation import wire
from llmcore.spi import Batch

BAD = 7


def on_bad(deed: Callable[[], object]) -> LlamaCppBackend:
    """An engine that does something instead of evaluating `BAD`."""
    decode = LlamaCppContext.decode

    def decode_or_do(self: LlamaCppContext, batch: Batch) -> None:
        if BAD in batch.tokens:
            deed()
        decode(self, batch)

    LlamaCppContext.decode = decode_or_do  # type: ignore[method-assign]
    return LlamaCppBackend()


def sending(send: Callable[[Any, bytes], object]) -> LlamaCppBackend:
    """An engine after whose `BAD` each reply is sent in another way."""

    def begin() -> None:
        wire.send = send  # type: ignore[assignment]

    return on_bad(begin)


def abort() -> LlamaCppBackend:
    """As after an assertion that failed, by ggml's own `abort()`."""
    arguments = ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
    fail = ggml("ggml_abort", None, *arguments)
    return on_bad(lambda: fail(b"engine.cpp", 1, b"GGML_ASSERT(false) failed"))


def segfault() -> LlamaCppBackend:
    """In native code of the engine, by a pointer to nothing."""
    return on_bad(lambda: C.llama_n_ctx(None))


def kill() -> LlamaCppBackend:
    """As the system does when there is no memory left."""
    return on_bad(lambda: os.kill(os.getpid(), signal.SIGKILL))


def hang() -> LlamaCppBackend:
    """In native code that lets no Python thread of the child run."""
    return on_bad(lambda: ctypes.PyDLL(None).pause())


def malformed() -> LlamaCppBackend:
    """A frame with bytes in it that are no message."""
    send = wire.send
    return sending(lambda connection, content: send(connection, b"\xc1" * 8))


def oversized() -> LlamaCppBackend:
    """A frame that says that it has a terabyte."""
    header = wire.HEADER.pack(1 << 40)
    return sending(lambda connection, content: connection.sendall(header + content))
