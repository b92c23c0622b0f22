"""
`IsolatedBackend`: any backend, run in a child process, behind the same seam.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from llmcore.errors import BackendError, BackendUnavailableError
from llmcore.isolation.checks import check_devices
from llmcore.isolation.host import Host
from llmcore.isolation.model import IsolatedModel, with_sampling
from llmcore.isolation.wire import BACKEND
from llmcore.params.isolation import WATCHDOG, Restart
from llmcore.spi import Backend, Progress
from llmcore.values import BackendInfo, Device, ModelParams, evolve


def isolated(
    info: BackendInfo,
    *,
    restart: Restart = "never",
    watchdog: float | None = WATCHDOG,
) -> IsolatedBackend:
    """
    A backend whose engine lives, and dies, in a process of its own.

    Args:
        info: Of the backend; its factory is imported in the child.

        restart: What follows when the child dies, hangs or sends nonsense. With
            ``"never"`` every call from then on raises `BackendCrashedError`. With
            ``"replay"`` another child takes its place, gets what every sequence held,
            and is asked again.

        watchdog: Seconds without a sign of life in a call, after which the child
            counts as hanging; None waits for ever.

    Raises:
        BackendUnavailableError: It cannot be created there, or not on this system.

        BackendCrashedError: It died of being created.

        ValueError: An argument is out of range.
    """
    if restart not in ("never", "replay"):
        raise ValueError(f"restart must be 'never' or 'replay', got {restart!r}")
    if watchdog is not None and not watchdog > 0:
        raise ValueError(f"watchdog must be above 0 seconds, got {watchdog!r}")
    if not hasattr(socket, "send_fds") or not sys.executable:
        raise BackendUnavailableError(
            "isolation needs a POSIX system and a Python program to start: load the "
            "engine into this process"
        )
    return IsolatedBackend(info, restart, watchdog)


def isolated_info(info: BackendInfo) -> BackendInfo:
    """What `isolated` declares: the same, but where core can sample, it does there."""
    return evolve(info, capabilities=with_sampling(info.capabilities))


class IsolatedBackend(Backend):
    """Lives until `close`, and the child with it. Made by `isolated`."""

    def __init__(
        self, info: BackendInfo, restart: Restart, watchdog: float | None
    ) -> None:
        self.info = isolated_info(info)
        self._host = Host(info, restart, watchdog)

    @property
    def pid(self) -> int:
        """Of the child that runs now."""
        return self._host.process.pid

    def devices(self) -> Sequence[Device]:
        """Those that the child sees."""
        found: list[Device] = self._host.run(
            lambda process: process.call("devices", BACKEND, check=check_devices),
            BackendError,
        )
        return found

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> IsolatedModel:
        """Load it in the child; ``progress`` is called here, in this thread."""
        return IsolatedModel(self._host, path, params, progress)

    def close(self) -> None:
        """Free the engine and end the child; past a deadline it is killed."""
        self._host.close()
