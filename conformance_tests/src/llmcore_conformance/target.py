"""
`Target`: the backend under test, how to make instances of it, and its model file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

import llmcore
from llmcore import Backend, BackendInfo, Llama, Model
from llmcore.errors import BackendUnavailableError, UnknownBackendError
from llmcore.plugins import registry
from llmcore.plugins.compatibility import find_obstacle
from llmcore.plugins.values import Origin
from llmcore.values import Capability, ModelInfo

if TYPE_CHECKING:
    from llmcore_conformance.ledger import SeamLedger

CHILD = """\
from llmcore_conformance.target import find_target
target = find_target({name!r}, isolation={isolation!r})
"""
ON_FILE = "target = target.on({path!r})\n"


@frozen(kw_only=True)
class Target:
    """
    What the suite runs against.

    Args:
        name: Finds it again: ``"distribution:name"``, or ``"module:attribute"``.

        create: Makes a new instance of the engine.

        describe: Asks the plugin for its facts; each call asks anew.

        model_path: The model file; None for a backend that reads none.

        isolation: ``"process"`` if `create` runs the engine in a process of its own.

        lent: Capabilities that it declares because core is with it in that process.

        child: Source that defines the same ``target``, without the model file, in
            another process.
    """

    name: str
    create: Callable[[], Backend]
    describe: Callable[[], BackendInfo]
    model_path: Path | None = None
    isolation: str | None = None
    lent: frozenset[Capability] = frozenset()
    child: str = field()

    @child.default
    def _same(self) -> str:
        return CHILD.format(name=self.name, isolation=self.isolation)

    def on(self, model_path: str | Path) -> Target:
        """The same engine with another model file."""
        return evolve(self, model_path=Path(model_path).absolute())

    @property
    def source(self) -> str:
        """Source that defines the same ``target`` in another process."""
        if self.model_path is None:
            return self.child
        return self.child + ON_FILE.format(path=str(self.model_path))

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

    def ask(self) -> ModelInfo:
        """The facts about the model under test, from an instance of its own."""
        with self.open() as llama, self.load(llama) as model:
            return model.info


def find_target(name: str, *, isolation: str | None = None) -> Target:
    """
    The target of a backend's name, or of ``"module:attribute"``.

    Args:
        name: An installed backend, or where the `BackendInfo` of one is that is not
            installed.

        isolation: ``"process"`` to run the engine in a process of its own.

    Raises:
        LookupError: There is no such backend.

        BackendUnavailableError: It cannot be used here.
    """
    try:
        qualified = registry().get(name).qualified
    except UnknownBackendError:
        if ":" not in name:
            raise
        target = _unregistered(name)
    else:
        target = Target(
            name=qualified,
            create=lambda: registry().create(name),
            describe=lambda: registry().get(name).info,
        )
    return target if isolation is None else _isolated(target, isolation)


def _unregistered(name: str) -> Target:
    """A backend that no plugin provides; for authors, and for tests of the suite."""
    info = _imported(name)
    if not isinstance(info, BackendInfo):
        raise TypeError(f"{name} must be a BackendInfo, it is {info!r}")
    origin = Origin(plugin=info.name, distribution=name.partition(":")[0])
    if problem := find_obstacle(info, origin):
        raise BackendUnavailableError(problem.message)
    return Target(
        name=name, create=lambda: _imported(info.factory)(), describe=lambda: info
    )


def _isolated(target: Target, isolation: str) -> Target:
    """The same engine, each instance in a process of its own."""
    from llmcore.isolation import isolated, isolated_info

    info = target.describe()
    return evolve(
        target,
        create=lambda: isolated(target.describe()),
        describe=lambda: isolated_info(target.describe()),
        isolation=isolation,
        lent=isolated_info(info).capabilities - info.capabilities,
        child=CHILD.format(name=target.name, isolation=isolation),
    )


def _imported(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))
