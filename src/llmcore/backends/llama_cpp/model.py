"""Loaded weights, their vocabulary, and how a context is made of them."""

from __future__ import annotations

import ctypes
from pathlib import Path

from llmcore.backends.llama_cpp import logs, native
from llmcore.backends.llama_cpp.context import LlamaCppContext
from llmcore.backends.llama_cpp.facts import model_info
from llmcore.backends.llama_cpp.native import C
from llmcore.backends.llama_cpp.native_params import context_params
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


class LlamaCppModel(BackendModel):
    """Lives until `close`; owns the native model it is given once it is complete."""

    def __init__(self, handle: int, path: Path) -> None:
        if C.llama_model_has_encoder(handle) and C.llama_model_has_decoder(handle):
            raise ModelLoadError(
                path, "models with encoder and decoder do not work here"
            )
        self._vocab = C.llama_model_get_vocab(handle)
        self._info = evolve(
            model_info(handle, self._vocab),
            fingerprint=fingerprint(path),
            build=native.build(),
        )
        self._pieces: dict[int, bytes] = {}
        self._handle = handle

    @property
    def info(self) -> ModelInfo:
        """The facts about the model."""
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        """The tokens of plain text; what is not UTF-8 in it is read as U+FFFD."""
        try:
            text.decode()
        except UnicodeDecodeError:
            # The engine's WordPiece tokenizer ends the process on some such bytes.
            text = text.decode(errors="replace").encode()
        size = len(text) + 8  # a token per byte, and what a vocabulary may prepend
        while True:
            tokens = (ctypes.c_int32 * size)()
            count = C.llama_tokenize(
                self._vocab, text, len(text), tokens, size, False, False
            )
            if count >= 0:
                return tokens[:count]
            size = -count

    def piece(self, token: int) -> bytes:
        """The bytes of a token; asked of the engine once for each."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        if not 0 <= token < self._info.vocab_size:
            raise ValueError(
                f"token must be between 0 and {self._info.vocab_size - 1}, got {token}"
            )
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = C.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def create_context(self, params: ContextParams) -> LlamaCppContext:
        """Reserve a cache and working memory for all of its sequences."""
        params = resolve(params)
        check_context(params, self._info)
        with logs.captured() as lines:
            handle = C.llama_init_from_model(
                self._handle, context_params(params, self._info)
            )
        if not handle:
            raise creation_error(params, logs.reason(lines))
        return LlamaCppContext(
            handle,
            self._given(handle, params),
            self._info,
            lines,
        )

    def _given(self, handle: int, params: ContextParams) -> ContextParams:
        limit = longest(self._info)
        size = C.llama_n_ctx_seq(handle)
        return evolve(
            params,
            context_size=size if limit is None else min(size, limit),
            batch_size=C.llama_n_batch(handle),
            micro_batch_size=C.llama_n_ubatch(handle),
        )

    def close(self) -> None:
        """Free the weights."""
        handle = self._handle
        del self._handle, self._vocab
        C.llama_model_free(handle)
        native.return_memory()
