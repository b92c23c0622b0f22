"""
`Server`: the objects of the child, and what is asked of them, one thread a connection.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import NoneType
from typing import Any

import msgspec

from llmcore.isolation import faults, wire
from llmcore.isolation.hosted import (
    Hosted,
    HostedBackend,
    HostedContext,
    HostedModel,
    create_backend,
)
from llmcore.isolation.memory import SharedMemory
from llmcore.isolation.wire import BACKEND, Call, Created, Done, Progress
from llmcore.values import ContextParams, ModelInfo, ModelParams


class Server:
    """Lives as long as the child. Any thread."""

    def __init__(self) -> None:
        self._objects: dict[int, Hosted] = {}

    def serve(self, connection: socket.socket, memory: SharedMemory | None) -> None:
        """
        Answer the calls of one connection, in a new thread, until it ends.

        Args:
            connection: To the parent.

            memory: For the context that is made through it.
        """
        name = f"lane-{connection.fileno()}"
        visitor = _Visitor(self._objects, connection, memory)
        threading.Thread(target=visitor.run, name=name, daemon=True).start()

    def ring(self, target: int, moment: int) -> None:
        """Pass an abort on."""
        context = self._objects.get(target)
        if isinstance(context, HostedContext):
            context.alarm.ring(moment)


class _Visitor:
    """The thread of one connection."""

    def __init__(
        self,
        objects: dict[int, Hosted],
        connection: socket.socket,
        memory: SharedMemory | None,
    ) -> None:
        self._objects = objects
        self._connection = connection
        self._memory = memory

    def run(self) -> None:
        with suppress(EOFError, OSError), self._connection:
            while True:
                call = wire.read_call(self._receive())
                wire.send(self._connection, self._answer(call))

    def _receive(self) -> bytes:
        return wire.receive(self._connection, wire.LARGEST + wire.MIB)

    def _answer(self, call: Call) -> bytes:
        try:
            op = wire.OPS[call.op]
            result = self._do(call, op.read_arguments.decode(call.arguments))
            if op.result is NoneType:
                result = None
            return wire.encode(Done(call.number, msgspec.Raw(wire.encode(result))))
        except BaseException as error:
            return wire.encode(faults.pack(call.number, error))

    def _do(self, call: Call, arguments: tuple[Any, ...]) -> Any:
        if call.op == "start":
            self._objects[BACKEND] = HostedBackend(create_backend(*arguments))
            return None
        if call.op == "close":
            return self._close(call.target)
        target = self._objects[call.target]
        if call.op == "load_model":
            return self._load(target, call.number, *arguments)
        if call.op == "create_context":
            return self._create(target, *arguments)
        method: Callable[..., Any] | None = getattr(target, call.op, None)
        return (method or getattr(target.real, call.op))(*arguments)

    def _close(self, number: int) -> None:
        """An object that a call cut short never made is as good as closed."""
        hosted = self._objects.pop(number, None)
        if hosted is not None:
            hosted.close()

    def _load(
        self,
        backend: Hosted,
        call: int,
        number: int,
        path: bytes | None,
        params: ModelParams,
    ) -> ModelInfo:
        def report(share: float) -> bool:
            with suppress(EOFError, OSError):  # nobody wants it any more
                message = wire.encode(Progress(call, float(share)))
                wire.send(self._connection, message)
                return wire.read_go_on(self._receive()).go_on
            return False

        assert isinstance(backend, HostedBackend)
        self._objects[number] = model = backend.load_model(path, params, report)
        return model.info

    def _create(self, model: Hosted, number: int, params: ContextParams) -> Created:
        assert isinstance(model, HostedModel)
        assert self._memory is not None
        self._objects[number] = context = model.create_context(params, self._memory)
        return context.created()
