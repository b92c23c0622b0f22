"""
`Target`: the backend under test, how to make instances of it, and its model file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

import llmcore
from llmcore import Backend, BackendInfo, Capability, Llama, Model
from llmcore.errors import UnknownBackendError
from llmcore.plugins import registry

if TYPE_CHECKING:
    from llmcore_conformance.ledger import SeamLedger

CHILD = """\
from llmcore_conformance.target import find_target
target = find_target({name!r}, {path!r})
"""


@frozen(kw_only=True)
class Target:
    """
    What the suite runs against.

    Args:
        name: As given to ``--llmcore-backend``.

        create: Makes a new instance of the engine.

        describe: Asks the plugin for its facts; each call asks anew.

        model_path: The model file; None for a backend that reads none.

        child: Source that defines the same ``target`` in another process.
    """

    name: str
    create: Callable[[], Backend]
    describe: Callable[[], BackendInfo]
    model_path: Path | None = None
    child: str = field()

    @child.default
    def _same(self) -> str:
        path = None if self.model_path is None else str(self.model_path)
        return CHILD.format(name=self.name, path=path)

    def open(self, ledger: SeamLedger | None = None) -> Llama:
        """A new instance whose seam is recorded."""
        from llmcore_conformance.ledger import RecordingBackend, SeamLedger

        backend = RecordingBackend(
            self.create(), self.describe(), ledger or SeamLedger()
        )
        return llmcore.get_llama(backend)

    def load(self, llama: Llama) -> Model:
        """The model under test."""
        return llama.load_model(self.model_path)

    def capabilities(self) -> frozenset[Capability]:
        """What the model under test can do on this backend."""
        with self.open() as llama, self.load(llama) as model:
            return model.capabilities


def find_target(name: str, model_path: str | Path | None = None) -> Target:
    """
    The target of a backend's name, or of ``"module:attribute"``.

    Args:
        name: An installed backend, or where the `BackendInfo` of one is that is not
            installed.

        model_path: The model file, if it reads one.

    Raises:
        LookupError: There is no such backend.

        BackendUnavailableError: It cannot be used here.
    """
    path = None if model_path is None else Path(model_path)
    try:
        registry().get(name)
    except UnknownBackendError:
        if ":" not in name:
            raise
        info = _imported(name)
        if not isinstance(info, BackendInfo):
            raise TypeError(f"{name} must be a BackendInfo, it is {info!r}") from None
        return Target(
            name=name,
            create=lambda: _imported(info.factory)(),
            describe=lambda: info,
            model_path=path,
        )
    return Target(
        name=name,
        create=lambda: registry().create(name),
        describe=lambda: registry().get(name).info,
        model_path=path,
    )


def _imported(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))
