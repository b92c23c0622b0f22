"""
Factories of null engines that go wrong, for children: imported there and not here.

Most do it when a prompt contains `BAD`, so that a test says when.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from llmcore.backends.null.backend import NullBackend
from llmcore.backends.null.context import NullContext
from llmcore.backends.null.model import NullModel
from llmcore.errors import ContextOverflowError, StateError
from llmcore.isolation import faults, wire
from llmcore.spi import Batch
from llmcore.testing import NullScript
from llmcore.values import Capability, ContextMemory

BAD = ord("!")


def on_bad(deed: Callable[[], object]) -> NullBackend:
    """An engine that does something when it is to evaluate `BAD`."""
    decode = NullContext.decode

    def decode_or_do(self: NullContext, batch: Batch) -> None:
        if BAD in batch.tokens:
            deed()
        decode(self, batch)

    NullContext.decode = decode_or_do  # type: ignore[method-assign]
    return NullBackend()


def answering(where: type, what: str, answer: object) -> NullBackend:
    """An engine of which one method always returns the same."""
    setattr(where, what, lambda *arguments, **options: answer)
    return NullBackend()


def sending(send: Callable[[Any, bytes], object]) -> NullBackend:
    """An engine after whose `BAD` each reply is sent in another way."""

    def begin() -> None:
        wire.send = send  # type: ignore[assignment]

    return on_bad(begin)


def say(text: str) -> None:
    print(text, flush=True)


# -- deaths ----------------------------------------------------------------------------


def segfault() -> NullBackend:
    return on_bad(lambda: ctypes.string_at(0))


def abort() -> NullBackend:
    return on_bad(os.abort)


def leave() -> NullBackend:
    return on_bad(lambda: os._exit(7))


def hang() -> NullBackend:
    return on_bad(threading.Event().wait)


def hang_with_the_lock() -> NullBackend:
    """It keeps every Python thread of the child from running."""

    def pause() -> None:
        say("inside")
        ctypes.PyDLL(None).pause()

    return on_bad(pause)


def talk_and_die() -> NullBackend:
    def die() -> None:
        for number in range(1000):
            say(f"line {number}")
        print("the cause, on stderr \x1b[1m", file=sys.stderr, flush=True)
        os.abort()

    return on_bad(die)


def die_at_birth() -> NullBackend:
    os.abort()


def die_in_load() -> NullBackend:
    """A model file that crashes the engine; a load without a file is fine."""
    load = NullBackend.load_model

    def load_or_die(self: NullBackend, path: Any, *rest: Any) -> NullModel:
        if path is not None:
            os.abort()
        return load(self, path, *rest)

    NullBackend.load_model = load_or_die  # type: ignore[method-assign]
    return NullBackend()


def die_in_sample() -> NullBackend:
    """Each draw kills it, but only if it is the first of its process."""
    NullContext.sample = lambda *_: os.abort()  # type: ignore[method-assign]
    return NullBackend()


def raise_at_birth() -> NullBackend:
    raise OSError("no such device")


def no_backend() -> object:
    return object()


# -- replies ---------------------------------------------------------------------------


def oversized() -> NullBackend:
    return sending(
        lambda connection, content: connection.sendall(
            wire.HEADER.pack(1 << 40) + content
        )
    )


def garbage() -> NullBackend:
    return sending(lambda connection, content: connection.sendall(b"\xff" * 64))


def no_message() -> NullBackend:
    send = wire.send
    return sending(lambda connection, content: send(connection, b"\xc1" * 8))


def torn() -> NullBackend:
    """The first byte of a reply, and then the connection ends."""

    def send(connection: Any, content: bytes) -> None:
        connection.sendall(wire.HEADER.pack(len(content))[:1])
        connection.close()

    return sending(send)


def twice() -> NullBackend:
    def send(connection: Any, content: bytes) -> None:
        frame = wire.HEADER.pack(len(content)) + content
        connection.sendall(frame + frame)

    return sending(send)


def late() -> NullBackend:
    """Each reply is that of the call before."""
    send, replies = wire.send, [wire.encode(wire.Done(1, msgspec.Raw(b"\x90")))]

    def send_older(connection: Any, content: bytes) -> None:
        replies.append(content)
        send(connection, replies.pop(0))

    return sending(send_older)


def unknown_error() -> NullBackend:
    def pack(number: int, error: BaseException) -> wire.Failed:
        return wire.Failed(number, "NoSuchError", (), "")

    faults.pack = pack  # type: ignore[assignment]
    script = NullScript()
    script.fail("decode")
    return NullBackend(script)


def impossible_token() -> NullBackend:
    return answering(NullContext, "sample", 1 << 40)


def negative_token() -> NullBackend:
    return answering(NullModel, "tokenize", [65, -1])


def impossible_bounds() -> NullBackend:
    return answering(NullContext, "bounds", (3, 1))


def textual_bounds() -> NullBackend:
    return answering(NullContext, "bounds", "no")


def textual_piece() -> NullBackend:
    return answering(NullModel, "piece", "no")


def negative_memory() -> NullBackend:
    return answering(NullContext, "memory", ContextMemory(kv_cache=-1))


def numeric_state() -> NullBackend:
    return answering(NullContext, "save_state", 3)


# -- other -----------------------------------------------------------------------------


def talk() -> NullBackend:
    """It writes to both outputs, by Python and below it."""

    def speak() -> None:
        say("from Python")
        os.write(1, b"from below\n")
        os.write(2, b"from below, as an error\n")

    return on_bad(speak)


def wait_inside() -> NullBackend:
    """It says when it evaluates `BAD`, and waits for an abort."""
    script = NullScript()

    def wait() -> None:
        script.gate("decode", timeout=600)
        say("inside")

    on_bad(wait)
    return NullBackend(script)


def wait_for_file() -> NullBackend:
    """Its tokenizer opens the pipe that a text names, which waits for a writer."""
    tokenize = NullModel.tokenize

    def wait(self: NullModel, text: bytes) -> list[int]:
        if text.startswith(b"/"):
            say("inside")
            with open(text) as pipe:
                pipe.read()
        return tokenize(self, text)

    NullModel.tokenize = wait  # type: ignore[method-assign]
    return NullBackend()


def stuck_close() -> NullBackend:
    """It never comes back from being closed."""

    def close(self: NullBackend) -> None:
        say("inside")
        threading.Event().wait()

    NullBackend.close = close  # type: ignore[method-assign]
    return NullBackend()


def broken_tools() -> NullBackend:
    """It raises something of its own."""
    script = NullScript()
    script.fail("tokenize", error=ZeroDivisionError("by nothing"))
    return NullBackend(script)


def states_after_clear() -> NullBackend:
    """It loads states only where core loads them: into what was just cleared."""
    clear, load = NullContext.clear, NullContext.load_state
    cleared: list[NullContext] = []

    def clear_and_note(self: NullContext, *rest: Any, **options: Any) -> None:
        cleared.append(self)
        clear(self, *rest, **options)

    def load_or_refuse(self: NullContext, *rest: Any) -> None:
        if self not in cleared:
            raise StateError("scripted refusal")
        load(self, *rest)

    NullContext.clear = clear_and_note  # type: ignore[method-assign]
    NullContext.load_state = load_or_refuse  # type: ignore[method-assign]
    return NullBackend()


class TooLongError(ContextOverflowError):
    pass


def derived_error() -> NullBackend:
    script = NullScript()
    script.fail("tokenize", error=TooLongError(3, 2))
    return NullBackend(script)


def failing_load() -> NullBackend:
    script = NullScript()
    script.fail("load")
    return NullBackend(script)


def sampling_by_core() -> NullBackend:
    """It has logits but no sampler."""
    capabilities = NullScript().capabilities - {Capability.NATIVE_SAMPLING}
    return NullBackend(NullScript(capabilities=capabilities))
