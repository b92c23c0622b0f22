"""
`Lane`: one connection to the child, on which one call runs at a time.

The calling thread itself sends the call and reads its reply, and a thread of the child
itself receives it and does it: a round trip wakes nobody else.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import msgspec

from llmcore.isolation import faults, wire
from llmcore.isolation.wire import Call, Done, Failed, GoOn, MalformedError, Progress

T = TypeVar("T")
Check = Callable[[Any], object]
"""Called with a result that has the right type; raises `MalformedError`."""


class Lane:
    """
    Lives until `close`, or until the process at the other end is given up.

    Args:
        connection: To the child.

        backend: Its name, for messages.

        give_up: Called with what the child did wrong, without anything if only the
            connection broke; returns the exception to raise.

        watchdog: Seconds without a sign of life in a call, after which the child is
            given up; None waits for ever.
    """

    def __init__(
        self,
        connection: socket.socket,
        backend: str,
        give_up: Callable[..., Exception],
        watchdog: float | None,
    ) -> None:
        connection.settimeout(watchdog)
        self._connection = connection
        self._backend = backend
        self._give_up = give_up
        self._watchdog = watchdog
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()

    def ask(
        self,
        op: str,
        target: int,
        *arguments: Any,
        check: Check | None = None,
        progress: Callable[[float], bool] | None = None,
    ) -> Any:
        """
        Call something in the child and wait for what it returns.

        Args:
            op: One of `wire.OPS`.

            target: The number of the object.

            arguments: As its `Op` says.

            check: Looks at the result.

            progress: Called in this thread with the share loaded; returning False
                cancels.

        Raises:
            BackendCrashedError: The child died, hangs, or sent what cannot be.

            LlmcoreError: What the call raised there.
        """
        number = next(self._numbers)
        call = Call(number, op, target, msgspec.Raw(wire.encode(arguments)))
        try:
            reply, held = self._converse(call, progress)
            result = self._result(op, reply, check)
        except TimeoutError as error:
            said = f"gave no answer to {op!r} for {self._watchdog:g} s"
            raise self._give_up(said) from error
        except (MalformedError, msgspec.MsgspecError) as error:
            said = f"sent a malformed reply to {op!r} ({error})"
            raise self._give_up(said) from error
        except (EOFError, OSError) as error:
            raise self._give_up() from error
        if held is not None:
            raise held
        if isinstance(result, Exception):
            raise result
        return result

    def _converse(
        self, call: Call, progress: Callable[[float], bool] | None
    ) -> tuple[Done | Failed, BaseException | None]:
        """The reply to a call; and what is to be raised although there is one."""
        reply, held = self._exchange(call, call.op)
        while isinstance(reply, Progress):
            _same(reply.number, call.number)
            go_on, held = _report(progress, reply.share, held)
            reply, interrupt = self._exchange(GoOn(go_on), call.op)
            held = held or interrupt
        _same(reply.number, call.number)
        return reply, held

    def _result(self, op: str, reply: Done | Failed, check: Check | None) -> Any:
        if isinstance(reply, Failed):
            return faults.unpack(reply, self._backend)
        result = wire.OPS[op].read_result.decode(reply.result)
        if check is not None:
            check(result)
        return result

    def _exchange(
        self, message: Call | GoOn, op: str
    ) -> tuple[wire.Reply, BaseException | None]:
        """Send a message and read the reply; and what a signal wants raised after."""
        content, limit = wire.encode(message), wire.OPS[op].limit
        held = None
        if threading.current_thread() is threading.main_thread():
            frame, held = unbroken(lambda: self._swap(content, limit))
        else:
            frame = self._swap(content, limit)
        return wire.read_reply(frame), held

    def _swap(self, content: bytes, limit: int) -> bytes:
        with self._turn:
            wire.send(self._connection, content)
            return wire.receive(self._connection, limit)

    def close(self) -> None:
        """Nobody uses it any more."""
        self._connection.close()


def _same(number: int, expected: int) -> None:
    if number != expected:
        raise MalformedError(f"the reply to call {number} when {expected} is running")


def _report(
    progress: Callable[[float], bool] | None, share: float, held: BaseException | None
) -> tuple[bool, BaseException | None]:
    """Whether to go on, and what the callback raised, which must wait for the reply."""
    if not 0.0 <= share <= 1.0:
        raise MalformedError(f"a progress of {share}")
    if held is not None or progress is None:
        return held is None, held
    try:
        return progress(share), None
    except BaseException as error:
        return False, error


def unbroken(work: Callable[[], T]) -> tuple[T, BaseException | None]:
    """
    Do something that Ctrl-C must not leave half done, just as a native call.

    Only the main thread has to do with signals, so another one does it.

    Returns:
        What ``work`` returned, and what a signal handler raised meanwhile.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="llmcore-isolation", daemon=True).start()
    except RuntimeError:  # the interpreter exits
        return work(), None
    held: BaseException | None = None
    while not outcome.done():
        try:
            wait([outcome])
        except BaseException as error:
            held = error
    return outcome.result(), held
