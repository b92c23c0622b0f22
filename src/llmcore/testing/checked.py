"""
A backend whose seam is checked while it runs, for the tests of applications and of
authors: whoever breaks the contract of `llmcore.spi` gets a `ContractError`.

    engine = checked("example")
    with llmcore.get_llama(engine) as llama:
        ...                                    # whatever your program does
    assert engine.violations == [] and engine.live == {}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmcore.backends.null.ledger import Call
from llmcore.spi import (
    Backend,
    BackendContext,
    BackendModel,
    Progress,
)
from llmcore.testing.checked_context import CheckedContext
from llmcore.testing.contract import (
    Account,
    ContractError,
    Entry,
    check_info,
    check_request,
)
from llmcore.values import (
    BackendInfo,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
)

_process_lanes: dict[str, list[Call]] = {}


def checked(backend: str | Backend, info: BackendInfo | None = None) -> CheckedBackend:
    """
    Put a backend behind a seam that asserts the contract, in both directions.

    What core does is asserted before the engine hears of it, what the engine answers
    before core does; see `llmcore.spi`. Costs a few more calls of `bounds`.

    Args:
        backend: The name of an installed backend, or a `Backend` object.

        info: What the object declares; None for its own ``info``.

    Returns:
        A backend for `llmcore.get_llama`.
    """
    if isinstance(backend, str):
        from llmcore.plugins import registry

        chosen = registry().get(backend)
        return CheckedBackend(registry().create(chosen.qualified), chosen.info)
    info = info or getattr(backend, "info", None)
    if not isinstance(info, BackendInfo):
        raise TypeError(
            f"{type(backend).__name__} does not say what it declares: pass its "
            "BackendInfo as the second argument, or the name of an installed backend"
        )
    return CheckedBackend(backend, info)


class CheckedBackend(Backend):
    """
    Made by `checked`; lives as long as the backend behind it.

    Args:
        real: The backend.

        info: What it declares.
    """

    def __init__(self, real: Backend, info: BackendInfo) -> None:
        self.info = info
        self._real = real
        self._account = Account()
        wide = info.exclusion in ("device", "process")  # core takes both alike
        lane = _process_lanes.setdefault(info.name, []) if wide else None
        self._entry = Entry(self._account, "backend", lane=lane)

    @property
    def violations(self) -> list[ContractError]:
        """Every promise that was broken, oldest first, whatever core made of it."""
        return list(self._account.errors)

    @property
    def live(self) -> dict[str, int]:
        """How many objects of each kind were not closed yet."""
        return self._account.live

    def devices(self) -> Sequence[Device]:
        with self._entry.call("devices"):
            found = self._real.devices()
            right = all(isinstance(device, Device) for device in found)
            self._entry.backend("devices", right, "are Device objects", found)
            return found

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> CheckedModel:
        op, report = "load_model", _Report(progress)
        with self._entry.call(op):
            known = path is not None or not self.info.formats
            promise = "a backend that declares a format gets a file"
            self._entry.core(op, known, promise, path)
            model = self._real.load_model(path, params, report)
            right = isinstance(model, BackendModel)
            self._entry.backend(op, right, "returns a BackendModel", model)
            try:
                report.check(self._entry, op)
                return CheckedModel(model, self.info, self._entry)
            except BaseException:
                model.close()
                raise

    def close(self) -> None:
        with self._entry.close():
            self._real.close()


class _Report:
    """Passes progress on; lives as long as a load."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: list[float] = []
        self._stopped = False

    def __call__(self, share: float) -> bool:
        self._told.append(share)
        self._stopped = not self._progress(share) or self._stopped
        return not self._stopped

    def check(self, entry: Entry, op: str) -> None:
        """Assert, after a load that succeeded, what was reported."""
        told = self._told
        right = sorted(told) == told and told[:1] == [0.0] and told[-1:] == [1.0]
        entry.backend(op, right, "progress rises from 0.0 to 1.0", told)
        promise = "it raises once progress returned False"
        entry.backend(op, not self._stopped, promise, "it went on")


class CheckedModel(BackendModel):
    """A model at the checked seam."""

    def __init__(
        self, real: BackendModel, declared: BackendInfo, parent: Entry
    ) -> None:
        self._real = real
        self._info = real.info
        self._alone = declared.exclusion == "context"
        check_info(parent.account, self._info, declared)
        wide = declared.exclusion in ("device", "process")
        lane = parent.handle.lane if wide else None
        self._entry = Entry(parent.account, "model", parent, lane)

    @property
    def info(self) -> ModelInfo:
        found = self._real.info
        promise = "is the same object every time"
        self._entry.backend("info", found is self._info, promise, found)
        return found

    def tokenize(self, text: bytes) -> list[int]:
        op = "tokenize"
        with self._entry.call(op):
            self._entry.core(op, isinstance(text, bytes), "text is bytes", text)
            found = self._real.tokenize(text)
            self._entry.backend(op, isinstance(found, list), "returns a list", found)
            size, special = self._info.vocab_size, self._info.special_tokens.values()
            wrong = [n for n in found if not 0 <= n < size or n in special]
            promise = "tokens are in the vocabulary, and none is a control token"
            self._entry.backend(op, not wrong, promise, wrong)
            return found

    def piece(self, token: int) -> bytes:
        op, size = "piece", self._info.vocab_size
        with self._entry.call(op):
            known = 0 <= token < size
            self._entry.core(
                op, known, f"tokens are in the vocabulary of {size}", token
            )
            found = self._real.piece(token)
            self._entry.backend(op, isinstance(found, bytes), "returns bytes", found)
            silent = not found or token not in self._info.special_tokens.values()
            self._entry.backend(op, silent, "a control token has no text", found)
            return found

    def create_context(self, params: ContextParams) -> CheckedContext:
        op = "create_context"
        with self._entry.call(op):
            check_request(self._entry, params, self._info)
            context = self._real.create_context(params)
            right = isinstance(context, BackendContext)
            self._entry.backend(op, right, "returns a BackendContext", context)
            lane = None if self._alone else self._entry.handle.lane
            try:
                return CheckedContext(context, params, self._info, self._entry, lane)
            except BaseException:
                context.close()
                raise

    def close(self) -> None:
        with self._entry.close():
            self._real.close()
