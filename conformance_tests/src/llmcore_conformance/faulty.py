"""
Factories of the engine under test with a fault, for children of the tests of isolation.

Most faults show when the engine is asked for its devices, which needs no model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from llmcore.isolation import wire
from llmcore.isolation.hosted import create_backend
from llmcore.spi import Backend

ENGINE = "LLMCORE_CONFORMANCE_ENGINE"
"""Environment variable that holds the factory of the engine without the fault."""

LAST_WORDS = "the assertion of an engine has failed"
"""What `crashing` writes to its standard error."""


def crashing() -> Backend:
    """It aborts, as the assertions of native code do."""
    return _instead_of_devices(_abort)


def hanging() -> Backend:
    """It never answers."""
    return _instead_of_devices(threading.Event().wait)


def mistyped() -> Backend:
    """It answers with a text."""
    return _instead_of_devices(lambda: "no devices")


def malformed() -> Backend:
    """Each reply is no message."""
    return _sending(lambda connection, content: _send(connection, b"\xc1" * 8))


def oversized() -> Backend:
    """Each reply pretends to have a terabyte."""
    header = wire.HEADER.pack(1 << 40)
    return _sending(lambda connection, content: connection.sendall(header + content))


def late() -> Backend:
    """Each reply is to a call before the first."""
    content = wire.encode(wire.Done(0, msgspec.Raw(wire.encode([]))))
    return _sending(lambda connection, _: _send(connection, content))


_send = wire.send


def _abort() -> None:
    os.write(2, LAST_WORDS.encode() + b"\n")
    os.abort()


def _instead_of_devices(deed: Callable[[], Any]) -> Backend:
    engine = create_backend(os.environ[ENGINE])
    engine.devices = deed  # type: ignore[method-assign]
    return engine


def _sending(send: Callable[[Any, bytes], object]) -> Backend:
    wire.send = send  # type: ignore[assignment]
    return create_backend(os.environ[ENGINE])
