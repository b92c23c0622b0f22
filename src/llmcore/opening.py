"""
`get_llama`: which engine, in which process, and an instance of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmcore.llama import Llama
from llmcore.memory import Budget, Limit, Share
from llmcore.params.isolation import WATCHDOG, Isolation, Restart
from llmcore.plugins import BackendRequest, Gpu, registry
from llmcore.spi import Backend
from llmcore.values import BackendInfo, Capability

if TYPE_CHECKING:
    from llmcore.isolation import IsolatedBackend


def get_llama(
    backend: str | Backend = "auto",
    *,
    gpu: Gpu = "auto",
    require: Iterable[Capability] = (),
    isolation: Isolation | None = None,
    restart: Restart = "never",
    watchdog: float | None = WATCHDOG,
    budget: Budget | Share | Limit = None,
) -> Llama:
    """
    Make a new, independent instance of an engine.

    An engine with foreign code is started in a child process first, once for each
    version of it: if it crashes, hangs or finds no device there, this process never
    loads it.

    Args:
        backend: The name of an installed backend, ``"distribution:name"``, ``"auto"``
            for the one that the environment variable ``LLMCORE_BACKEND`` names, else
            the best one installed, or a `Backend` object of your own.

        gpu: ``"cuda"``, ``"metal"``, ``"vulkan"`` or ``"rocm"`` for an engine that
            finds such a device, never for another; False to keep all layers off any
            GPU; ``"auto"`` for an engine with a GPU if there is one. `Llama.gpu` says
            what it came to.

        require: Capabilities that the engine must declare.

        isolation: ``"process"`` runs the engine in a child process, so that its crash
            is an exception here; see ``docs/isolation.md``.

        restart: What follows a crash there. With ``"never"`` every call raises
            `BackendCrashedError`; with ``"replay"`` a new child takes over, and
            evaluates again what each sequence held.

        watchdog: Seconds without a sign of life in a call, after which an isolated
            engine counts as hanging; None waits for ever.

        budget: What models and contexts may use together: a `Budget`, which several
            instances can share, or the limit of one. None is no limit.

    Raises:
        UnknownBackendError: No plugin provides it; the message lists what there is.

        BackendUnavailableError: It is known but cannot be used, or there is none with
            such a device; says why, for each, and how to fix it.

        CapabilityError: The backend that was named lacks what is required.

        AmbiguousBackendError: Several distributions provide it.
    """
    if "LLMCORE_PS" in os.environ:
        from llmcore.introspection import publish_if_asked

        publish_if_asked()
    if backend == "auto":
        backend = os.environ.get("LLMCORE_BACKEND", "auto")
    isolated = _check_isolation(backend, isolation, restart)
    if isinstance(backend, Backend):
        request = BackendRequest(gpu=gpu, require=require)
        made, info = backend, _info_of(backend)
    else:
        request = BackendRequest(
            backend=backend, gpu=gpu, require=require, isolated=isolated
        )
        chosen = registry().select(request)
        if isolated:
            made = _isolated(chosen.info, restart, watchdog)
            info = made.info
        else:
            made, info = registry().create(chosen.qualified), chosen.info
    llama = Llama(made, info, gpu=gpu, budget=Budget.of(budget))
    try:
        llama.require(*request.require)
        if gpu != "auto" or made is not backend:
            llama._find_gpu()
    except BaseException:
        llama.dispose()
        raise
    return llama


def _check_isolation(backend: str | Backend, isolation: object, restart: str) -> bool:
    if isolation not in ("process", None):
        raise ValueError(f"isolation must be 'process' or None, got {isolation!r}")
    if isolation is None and restart != "never":
        raise ValueError(f"restart={restart!r} needs isolation='process'")
    if isolation is not None and isinstance(backend, Backend):
        raise ValueError(
            "a backend object lives in this process already and cannot be isolated: "
            "give the name of an installed one"
        )
    return isolation is not None


def _isolated(
    info: BackendInfo, restart: Restart, watchdog: float | None
) -> IsolatedBackend:
    from llmcore.isolation import isolated

    return isolated(info, restart=restart, watchdog=watchdog)


def _info_of(backend: Backend) -> BackendInfo:
    """What a backend of the application's own says about itself, or seems to be."""
    info = getattr(backend, "info", None)
    if isinstance(info, BackendInfo):
        return info
    name = type(backend).__name__
    return BackendInfo(name=name, factory=f"{type(backend).__module__}:{name}")


_default: Llama | None = None
_default_lock = threading.Lock()


def default_llama() -> Llama:
    """The shared instance of this process; a new one if the last was disposed."""
    global _default
    with _default_lock:
        if _default is None or _default.disposed:
            _default = get_llama()
        return _default
