"""
The program of the child: ``python -m llmcore.isolation.child DOOR BELL``.

Through the door, a socket, come connections, each served by a thread of its own. The
bell, a pipe, brings aborts. When the parent is gone, however it went, so is the child.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress

from llmcore.isolation.memory import SharedMemory
from llmcore.isolation.server import Server
from llmcore.isolation.wire import RING

GLANCE = 1000
"""Milliseconds between two looks at whether the parent lives."""


def main(door: int, bell: int) -> None:
    """
    Serve until the door closes.

    Args:
        door: File descriptor of the socket through which connections come.

        bell: Of the pipe that brings aborts.
    """
    _die_with_the_parent()
    faulthandler.enable(all_threads=False)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("llmcore").setLevel(logging.DEBUG)
    server = Server()
    watch = threading.Thread(target=_watch, args=(bell, server, os.getppid()))
    watch.daemon = True
    watch.start()
    with socket.socket(fileno=door) as entrance:
        while True:
            message, handles, _, _ = socket.recv_fds(entrance, 1, 2)
            if not message:
                return
            server.serve(socket.socket(fileno=handles[0]), _memory(handles[1:]))


def _memory(handles: list[int]) -> SharedMemory | None:
    if not handles:
        return None
    memory = SharedMemory(handles[0])
    memory.close_handle()
    return memory


def _die_with_the_parent() -> None:
    """
    Have the kernel end this process when its standard input ends.

    On Linux that works even while native code holds the interpreter's lock; `_watch`
    does it everywhere else. (`PR_SET_PDEATHSIG` would strike when the *thread* ends
    that started this process.)
    """
    if sys.platform == "linux":
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)


def _watch(bell: int, server: Server, parent: int) -> None:
    """Pass aborts on; end this process when the parent has ended."""
    ready = select.poll()
    ready.register(bell, select.POLLIN)
    while os.getppid() == parent:
        # The pipe stays open if a fork of the parent outlives it: so look at both.
        if ready.poll(GLANCE):
            rings = os.read(bell, 64 * RING.size)
            if not rings:
                break
            for target, moment in RING.iter_unpack(rings):
                with suppress(Exception):  # an engine's own affair
                    server.ring(target, moment)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
