"""A loaded model: its network, its vocabulary, and the facts about it."""

from __future__ import annotations

from pathlib import Path

from llmcore.backends.reference import architectures, tokenizers
from llmcore.backends.reference.context import ReferenceContext
from llmcore.backends.reference.facts import check_context, model_info, resolve
from llmcore.backends.reference.gguf_file import Settings, Weights
from llmcore.backends.reference.pooling import pooling
from llmcore.errors import InsufficientMemoryError
from llmcore.spi import BackendModel
from llmcore.values import ContextParams, ModelInfo


class ReferenceModel(BackendModel):
    """Lives until `close`."""

    def __init__(self, path: Path, settings: Settings, weights: Weights) -> None:
        self._tokenizer = tokenizers.create(settings)
        self._network = architectures.build(settings, weights)
        self._pooling = pooling(settings)
        self._info = model_info(
            settings,
            weights,
            self._tokenizer,
            path=path,
            kind=self._network.kind,
            pools=self._pooling is not None,
        )

    @property
    def info(self) -> ModelInfo:
        """The facts about the model."""
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        """The tokens of plain text; what is not UTF-8 in it is read as U+FFFD."""
        return self._tokenizer.tokenize(text.decode(errors="replace"))

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""
        if not 0 <= token < self._info.vocab_size:
            raise ValueError(
                f"token must be between 0 and {self._info.vocab_size - 1}, got {token}"
            )
        return self._tokenizer.piece(token)

    def create_context(self, params: ContextParams) -> ReferenceContext:
        """Reserve the caches of all its sequences."""
        params = resolve(params)
        check_context(params, self._info)
        try:
            return ReferenceContext(self._network, self._info, params, self._pooling)
        except (MemoryError, ValueError) as error:  # an array beyond all memory
            raise InsufficientMemoryError(
                f"no memory for context_size={params.context_size} and "
                f"sequences={params.sequences}: make one of them smaller"
            ) from error

    def close(self) -> None:
        """Let go of the weights."""
        del self._network, self._tokenizer
