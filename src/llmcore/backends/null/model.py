"""The null model: a vocabulary, facts, and the memory it pretends to use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llmcore import __version__
from llmcore.backends.null import vocabulary
from llmcore.backends.null.context import NullContext
from llmcore.backends.null.ledger import Handle, ViolationKind
from llmcore.errors import ContextCreationError
from llmcore.spi import BackendModel
from llmcore.values import CacheKind, Capability, ContextParams, ModelInfo

if TYPE_CHECKING:
    from llmcore.backends.null.backend import NullBackend
    from llmcore.backends.null.script import NullScript

EMBEDDING_SIZE = 16

_CACHE_ONLY = {
    Capability.PARTIAL_REMOVE,
    Capability.COPY,
    Capability.STATE_IO,
    Capability.LOGITS,
    Capability.NATIVE_SAMPLING,
}


def _capabilities(script: NullScript) -> frozenset[Capability]:
    found = script.capabilities
    if script.cache_kind is not CacheKind.FULL:
        found = found - {Capability.SHIFT}
    if script.cache_kind is CacheKind.NONE:
        found = found - _CACHE_ONLY
    return found


def _fingerprint(script: NullScript) -> str:
    """What decides whether two models speak alike and read each other's state."""
    identity = f"{script.name}/{script.cache_kind}/{script.window}"
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


def describe(script: NullScript) -> ModelInfo:
    """The facts about the model that a script describes."""
    return ModelInfo(
        architecture="null",
        vocab_size=vocabulary.VOCAB_SIZE,
        name=script.name,
        description="a deterministic model without weights",
        fingerprint=_fingerprint(script),
        build=f"null {__version__}",
        trained_context=script.trained_context,
        embedding_size=EMBEDDING_SIZE,
        layers=1,
        heads=1,
        kv_heads=1,
        size_bytes=script.model_bytes,
        cache_kind=script.cache_kind,
        bos_token=vocabulary.BOS,
        eos_token=vocabulary.EOS,
        end_tokens=frozenset({vocabulary.EOS, vocabulary.END_OF_TURN}),
        special_tokens=dict(vocabulary.SPECIAL_TOKENS),
        chat_template=vocabulary.CHAT_TEMPLATE,
        metadata={"general.architecture": "null", "general.name": script.name},
        capabilities=_capabilities(script),
    )


class NullModel(BackendModel):
    """A loaded model; lives until `close`."""

    def __init__(self, backend: NullBackend, handle: Handle, info: ModelInfo) -> None:
        self.backend = backend
        self.handle = handle
        self._info = info

    @property
    def info(self) -> ModelInfo:
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        with self.backend.ledger.use(self.handle, "tokenize"):
            self.backend.perform("tokenize")
            return vocabulary.tokenize(text)

    def piece(self, token: int) -> bytes:
        with self.backend.ledger.use(self.handle, "piece"):
            self.backend.perform("piece")
            if not 0 <= token < vocabulary.VOCAB_SIZE:
                self.backend.ledger.violate(
                    ViolationKind.TOKEN_RANGE, "piece", self.handle, f"token {token}"
                )
            return vocabulary.piece(token)

    def create_context(self, params: ContextParams) -> NullContext:
        with self.backend.ledger.use(self.handle, "create_context"):
            self.backend.perform("create_context")
            self._check_declared(params)
            return NullContext(self, params)

    def close(self) -> None:
        backend = self.backend
        linger = backend.script.release_delay
        with backend.ledger.close(self.handle, "close_model", linger=linger):
            backend.perform("close_model")

    def _check_declared(self, params: ContextParams) -> None:
        missing = set()
        if params.sequences > 1:
            missing.add(Capability.MULTI_SEQUENCE)
        if params.embeddings:
            missing.add(Capability.EMBEDDING)
        missing -= self._info.capabilities
        if missing:
            named = ", ".join(sorted(missing))
            self.backend.ledger.violate(
                ViolationKind.UNDECLARED, "create_context", self.handle, named
            )
            raise ContextCreationError(
                f"model {self._info.name!r} does not declare {named}: "
                "ask for a context without it"
            )
