"""A checked file, its vocabulary, and how a context is made of it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from llmcore.backends.ctransformers import INFO, native
from llmcore.backends.ctransformers.context import CtransformersContext
from llmcore.backends.ctransformers.limits import needed_bytes, tokens_at_once
from llmcore.backends.ctransformers.model_file import ModelFile
from llmcore.backends.ctransformers.native import Handle
from llmcore.backends.ctransformers.tokenizers import GreedyTokenizer, NativeTokenizer
from llmcore.errors import (
    ContextCreationError,
    ModelLoadError,
    ParameterError,
)
from llmcore.fingerprint import fingerprint
from llmcore.params.validators import INT32_MAX
from llmcore.spi import BackendModel
from llmcore.values import ContextParams, ModelInfo, evolve

SMALLEST = 8
"""Tokens in the cache of a native model that only tokenizes."""


class CtransformersModel(BackendModel):
    """
    Lives until `close`.

    The library makes weights and cache in one. So each context loads the file again,
    where possible mapped into the same memory. Where the cache has the size that the
    file says, the first context borrows what this object has loaded.

    Args:
        path: The file.

        file: What it holds.

        mapped: Map the weights, where this kind of file can.

    Raises:
        ModelLoadError: With nothing left behind.

        InsufficientMemoryError: The same.
    """

    def __init__(self, path: Path, file: ModelFile, *, mapped: bool) -> None:
        self._path = path
        self._file = file
        self._mapped = mapped and file.mappable
        self._info = evolve(
            file.info,
            name=file.info.name or path.stem,
            fingerprint=fingerprint(path),
            build=native.build(),
            capabilities=INFO.capabilities,
        )
        try:
            # To tokenize, the weights are not read: they may as well be mapped.
            self._handle = self._load(file.sizes.positions or SMALLEST, mapped=True)
        except OSError as error:
            raise ModelLoadError(path, str(error)) from error
        # Those that may be borrowed; `list.pop` and `append` need no lock.
        self._spare = [] if file.sizes.positions is None else [self._handle]
        self._tokenizer = (
            NativeTokenizer(self._handle, file.vocabulary)
            if file.own_tokenizer
            else GreedyTokenizer(file.vocabulary)
        )

    def _load(self, context_size: int, *, mapped: bool) -> Handle:
        return Handle(
            self._path,
            self._file.kind,
            context_size=context_size,
            needs=needed_bytes(self._file, context_size, mapped=mapped),
            mapped=mapped,
        )

    @property
    def info(self) -> ModelInfo:
        """The facts about the model."""
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        """The tokens of plain text."""
        return self._tokenizer(text)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, from the file: the library ends them at a NUL."""
        pieces = self._file.vocabulary.pieces
        if not 0 <= token < len(pieces):
            raise ValueError(
                f"token must be between 0 and {len(pieces) - 1}, got {token}"
            )
        return pieces[token]

    def create_context(self, params: ContextParams) -> CtransformersContext:
        """Borrow the native model, or load it again with a cache of that size."""
        given = self._given(params)
        try:
            handle = self._spare.pop()
        except IndexError:
            handle = self._load_again(given.size)
            own = 0 if self._mapped else self._info.size_bytes
            return CtransformersContext(handle, self._file, given, handle.close, own)
        give_back = partial(self._spare.append, handle)
        return CtransformersContext(handle, self._file, given, give_back, 0)

    def _load_again(self, context_size: int) -> Handle:
        try:
            return self._load(context_size, mapped=self._mapped)
        except OSError as error:
            raise ContextCreationError(
                f"cannot load {str(self._path)!r} again: {error}"
            ) from error

    def _given(self, params: ContextParams) -> ContextParams:
        """The parameters as they can be; what cannot be is refused."""
        kv_type = "f32" if self._file.sizes.cache_bytes == 4 else "f16"
        _check_kind(params, kv_type)
        threads = _threads(params.threads)
        at_once = min(params.micro_batch_size, params.batch_size)
        return evolve(
            params,
            micro_batch_size=min(at_once, self._most_at_once(params.size)),
            threads=threads,
            threads_batch=_threads(params.threads_batch or threads),
            kv_type_k=kv_type,
            kv_type_v=kv_type,
            flash_attention=False,
            offload_kv=False,
        )

    def _most_at_once(self, context_size: int) -> int:
        most = self._file.sizes.positions
        if most is not None and context_size > most:
            raise ParameterError(
                f"context_size must be at most {most}, got {context_size}: "
                "the model file fixes it"
            )
        if self._file.sizes.layers * context_size > INT32_MAX:
            raise ParameterError(
                f"context_size={context_size} is more than ctransformers can count "
                "for this model: make it smaller"
            )
        at_once = tokens_at_once(self._file, context_size)
        if at_once < 1:
            raise ParameterError(
                f"context_size={context_size} takes more working memory than "
                "ctransformers has for this model: make it smaller"
            )
        return at_once

    def close(self) -> None:
        """Free the native model."""
        self._handle.close()


def _check_kind(params: ContextParams, kv_type: str) -> None:
    for field in ("kv_type_k", "kv_type_v"):
        # The default, which nobody may have asked for, means the one that there is.
        if (asked := getattr(params, field)) not in (kv_type, "f16"):
            raise ParameterError(
                f"{field} must be {kv_type!r}, got {asked!r}: "
                "ctransformers has no other for this model"
            )
    if params.flash_attention is True:
        raise ParameterError(
            "flash_attention must be 'auto' or False: ctransformers has none"
        )


def _threads(asked: int | None) -> int:
    """Not more than there are processors: a thread that fails to start is fatal."""
    processors = usable = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return min(asked or usable, processors)
