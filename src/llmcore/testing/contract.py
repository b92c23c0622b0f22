"""
What is asserted about the seam: the error, the account that raises it, and the rules
for what crosses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from llmcore.backends.null.batch_rules import shape_faults
from llmcore.backends.null.ledger import Call, Handle, Ledger, ViolationKind
from llmcore.errors import LlmcoreError
from llmcore.spi import Batch
from llmcore.values import BackendInfo, Capability, ContextParams, ModelInfo

Party = Literal["core", "backend"]

EMPTY = (-1, -1)
"""Bounds of a sequence that holds nothing."""

PROMISES = {
    ViolationKind.USE_AFTER_FREE: "no call comes after `close`",
    ViolationKind.DOUBLE_FREE: "`close` comes once",
    ViolationKind.FREE_IN_USE: "`close` comes when no other call is inside",
    ViolationKind.PARENT_FREED_FIRST: "`close` comes to children first",
    ViolationKind.OVERLAP: "calls never overlap within the exclusion scope",
    ViolationKind.FORKED: "no call comes in a forked child",
}
"""Core's promises of which a `Ledger` keeps account."""

CLASSES = {
    "backend": "Backend",
    "model": "BackendModel",
    "context": "BackendContext",
    "sampler": "BackendSampler",
}


class ContractError(LlmcoreError, AssertionError):
    """
    Core, or the backend, did not do at the seam what `llmcore.spi` promises.

    Attributes:
        party: Who broke the promise: ``"core"`` or ``"backend"``.

        method: In which method of the seam, such as ``"BackendContext.decode"``.

        promise: What was promised.

        seen: What was seen instead.
    """

    def __init__(self, party: Party, method: str, promise: str, seen: str) -> None:
        super().__init__(
            f"{party} broke the contract of {method}: {promise}; seen: {seen}"
        )
        self.party = party
        self.method = method
        self.promise = promise
        self.seen = seen

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.party, self.method, self.promise, self.seen)


class Account(Ledger):
    """A ledger that raises what it finds; lives as long as a checked backend."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[ContractError] = []

    def violate(
        self, kind: ViolationKind, op: str, handle: Handle, detail: str = ""
    ) -> None:
        """Raise the broken promise, before the engine hears of the call."""
        method = f"{CLASSES[handle.kind]}.{op}"
        raise self.broken("core", method, PROMISES[kind], f"{handle}: {detail or kind}")

    def expect(
        self, party: Party, method: str, kept: bool, promise: str, seen: object
    ) -> None:
        """Raise unless a promise was kept."""
        __tracebackhide__ = True
        if not kept:
            raise self.broken(party, method, promise, seen)

    def broken(
        self, party: Party, method: str, promise: str, seen: object
    ) -> ContractError:
        """The error to raise, written down: whoever calls may swallow it."""
        shown = seen if isinstance(seen, str) else repr(seen)
        self.errors.append(ContractError(party, method, promise, shown))
        return self.errors[-1]


class Entry:
    """
    One native object in the account; lives as long as the object.

    Args:
        account: Of its backend.

        kind: One of `CLASSES`.

        parent: The object that it lives on.

        lane: The calls that must not overlap with its own; None for a new one.
    """

    def __init__(
        self,
        account: Account,
        kind: str,
        parent: Entry | None = None,
        lane: list[Call] | None = None,
    ) -> None:
        self.account = account
        owner = None if parent is None else parent.handle
        self.handle: Handle = account.allocate(kind, owner, lane=lane)

    def core(self, op: str, kept: bool, promise: str, seen: object) -> None:
        """Assert what core promises."""
        __tracebackhide__ = True
        self.account.expect("core", self._method(op), kept, promise, seen)

    def backend(self, op: str, kept: bool, promise: str, seen: object) -> None:
        """Assert what a backend owes."""
        __tracebackhide__ = True
        self.account.expect("backend", self._method(op), kept, promise, seen)

    @contextmanager
    def call(self, op: str, *, exclusive: bool = False) -> Iterator[None]:
        """A call of the engine, and what it may raise."""
        with (
            self.account.use(self.handle, op, exclusive=exclusive),
            self._errors(op),
        ):
            yield

    @contextmanager
    def close(self, *, exclusive: bool = False) -> Iterator[None]:
        """The last call."""
        with (
            self.account.close(self.handle, "close", exclusive=exclusive),
            self._errors("close"),
        ):
            yield

    def declared(self, op: str, capability: Capability, info: ModelInfo) -> None:
        """Assert that core may call an optional method."""
        self.core(
            op,
            capability in info.capabilities,
            "what is not declared is never called",
            f"the model does not declare {capability.value!r}",
        )

    @contextmanager
    def _errors(self, op: str) -> Iterator[None]:
        try:
            yield
        except LlmcoreError:
            raise
        except Exception as error:
            promise = "raises only llmcore.errors on purpose"
            raise self.account.broken(
                "backend", self._method(op), promise, error
            ) from error

    def _method(self, op: str) -> str:
        return f"{CLASSES[self.handle.kind]}.{op}"


# -- rules -----------------------------------------------------------------------------


def check_info(account: Account, info: object, declared: BackendInfo) -> None:
    """Assert that the facts about a model agree with themselves."""
    owes = partial(account.expect, "backend", "BackendModel.info")
    owes(isinstance(info, ModelInfo), "is a ModelInfo", info)
    assert isinstance(info, ModelInfo)
    size = info.vocab_size
    more = ", ".join(sorted(info.capabilities - declared.capabilities))
    promise = "a model's capabilities are among those of its BackendInfo"
    owes(not more, promise, f"also {more}")
    owes(size > 0, "the vocabulary has tokens", f"vocab_size={size}")
    named = {*info.end_tokens, *info.special_tokens.values()}
    named |= {n for n in (info.bos_token, info.eos_token) if n is not None}
    wrong = sorted(token for token in named if not 0 <= token < size)
    promise = f"special tokens are in the vocabulary of {size}"
    owes(not wrong, promise, wrong)
    if Capability.EMBEDDING in info.capabilities:
        promise = "a model with embeddings says their size"
        owes(info.embedding_size > 0, promise, info.embedding_size)


def check_request(entry: Entry, params: ContextParams, info: ModelInfo) -> None:
    """Assert that core asks only for contexts that the model can have."""
    op, size = "create_context", params.context_size
    entry.core(op, isinstance(size, int), "context_size is a number", size)
    if params.sequences > 1:
        entry.declared(op, Capability.MULTI_SEQUENCE, info)
    if params.embeddings:
        entry.declared(op, Capability.EMBEDDING, info)


def check_given(account: Account, asked: ContextParams, given: object) -> None:
    """Assert that ``params`` says what was really given, and that it is enough."""
    owes = partial(account.expect, "backend", "BackendContext.params")
    owes(isinstance(given, ContextParams), "are ContextParams", given)
    assert isinstance(given, ContextParams)
    size, wanted = given.context_size, asked.context_size
    enough = isinstance(size, int) and isinstance(wanted, int) and size >= wanted
    owes(enough, f"context_size is at least the {wanted} asked for", size)
    owes(
        given.sequences == asked.sequences,
        f"sequences are the {asked.sequences} asked for",
        given.sequences,
    )
    for name in ("threads", "threads_batch"):
        found = getattr(given, name)
        owes(found is not None, f"{name} is resolved", found)


def check_batch(
    entry: Entry, batch: Batch, params: ContextParams, info: ModelInfo
) -> None:
    """Assert the shape and the ranges of a batch; its positions are another matter."""
    for fault in shape_faults(batch, params, info.vocab_size):
        entry.core("decode", False, fault.promise, fault.seen)


def check_logits(entry: Entry, found: object, size: int) -> None:
    """Assert that logits are what core can sample from."""
    import numpy as np

    op = "logits"
    entry.backend(op, isinstance(found, np.ndarray), "are a NumPy array", type(found))
    assert isinstance(found, np.ndarray)
    entry.backend(op, found.shape == (size,), f"their shape is ({size},)", found.shape)
    right = found.dtype == np.float32
    entry.backend(op, right, "their dtype is float32", str(found.dtype))
    promise = "each is a finite number or minus infinity, and one at least is finite"
    largest = float(found.max())
    entry.backend(op, np.isfinite(largest), promise, f"the largest is {largest}")
