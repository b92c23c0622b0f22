"""Loaded weights, their vocabulary, and how a context is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmcore.backends.llama_cpp import logs
from llmcore.backends.llama_cpp.rules import (
    check_context,
    creation_error,
    longest,
    resolve,
)
from llmcore.errors import ModelLoadError
from llmcore.fingerprint import fingerprint
from llmcore.spi import BackendModel
from llmcore.values import ContextParams, ModelInfo, evolve
from llmcore_cyllama import engine
from llmcore_cyllama.context import CyllamaContext
from llmcore_cyllama.engine import C
from llmcore_cyllama.facts import model_info
from llmcore_cyllama.params import context_params


class CyllamaModel(BackendModel):
    """Lives until `close`; owns the native model it is given once it is complete."""

    def __init__(self, native: Any, path: Path) -> None:
        if native.has_encoder() and native.has_decoder():
            raise ModelLoadError(
                path, "models with encoder and decoder do not work here"
            )
        self._vocab = native.get_vocab()
        try:
            info = model_info(native, self._vocab)
        except UnicodeDecodeError as error:
            reason = f"it has text that is not UTF-8: {error}"
            raise ModelLoadError(path, reason) from error
        self._info = evolve(info, fingerprint=fingerprint(path), build=engine.build())
        self._pieces: dict[int, bytes] = {}
        self._native = native

    @property
    def info(self) -> ModelInfo:
        """The facts about the model."""
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        """The tokens of plain text; what is not UTF-8 in it is read as U+FFFD."""
        tokens: list[int] = self._vocab.tokenize(
            text.decode(errors="replace"), False, False
        )
        return tokens

    def piece(self, token: int) -> bytes:
        """The bytes of a token; asked of the engine once for each."""
        piece = self._pieces.get(token)
        if piece is None:
            if not 0 <= token < self._info.vocab_size:  # the process would end
                last = self._info.vocab_size - 1
                raise ValueError(f"token must be between 0 and {last}, got {token}")
            piece = self._pieces[token] = self._vocab.token_to_bytes(token, 0, False)
        return piece

    def create_context(self, params: ContextParams) -> CyllamaContext:
        """Reserve a cache and working memory for all of its sequences."""
        params = resolve(params)
        check_context(params, self._info)
        native_params = context_params(params, self._info)
        with logs.captured() as lines:
            try:
                native = C.LlamaContext(self._native, native_params, verbose=False)
            except RuntimeError as error:
                raise creation_error(params, logs.reason(lines)) from error
        given = self._given(native, params)
        return CyllamaContext(native, given, self._info, lines)

    def _given(self, native: Any, params: ContextParams) -> ContextParams:
        limit = longest(self._info)
        size = native.n_ctx_seq
        return evolve(
            params,
            context_size=size if limit is None else min(size, limit),
            batch_size=native.n_batch,
            micro_batch_size=native.n_ubatch,
        )

    def close(self) -> None:
        """Free the weights."""
        native = self._native
        del self._native, self._vocab
        native.close()
        engine.return_memory()
