"""
`Model`: loaded weights and vocabulary, shared by the contexts on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcore.context import Context
from llmcore.engine.pieces import Pieces
from llmcore.lifecycle import Exclusion, Resource
from llmcore.plugins.support import Support, require, support
from llmcore.seam import first_look
from llmcore.spi import BackendModel
from llmcore.twins import twin
from llmcore.values import (
    Capability,
    ContextParams,
    ModelInfo,
    evolve,
    merge,
)

if TYPE_CHECKING:
    from llmcore.chat_template import ChatTemplate
    from llmcore.llama import Llama

AUTO_CONTEXT_SIZE = 4096
"""``context_size="auto"`` is the trained length, but not more tokens than this."""


class Model(Resource):
    """
    Lives until it or its `Llama` is disposed. Any thread may use it.

    Made by `Llama.load_model`.
    """

    def __init__(
        self,
        llama: Llama,
        native: BackendModel,
        path: Path | None,
        exclusion: Callable[[], Exclusion],
    ) -> None:
        self.path = path
        self.backend = llama.backend
        self.info: ModelInfo = first_look(native, "info")
        self._exclusion = exclusion
        super().__init__(
            "model",
            parent=llama,
            handle=native,
            teardown=_close,
            name=self.info.name or (path.name if path else ""),
            translate=llama._node.translate,
        )
        self._pieces = Pieces(self._node, self.info.vocab_size)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this model can do on its backend."""
        return self.info.capabilities

    @property
    def support(self) -> Mapping[str, Support]:
        """How each operation is done here; see `llmcore.plugins.support`."""
        return support(self.capabilities)

    def require(self, *capabilities: Capability) -> None:
        """
        Raises:
            CapabilityError: One of them is not declared; names it.
        """
        require(self._node.label, self.capabilities, capabilities)

    def create_context(
        self, params: ContextParams | None = None, **fields: Any
    ) -> Context:
        """
        Make a context: the memory in which sequences live.

        Args:
            params: How to create it.

            fields: Or the fields of `ContextParams` one by one, over ``params``.

        Raises:
            ContextCreationError: The engine could not; this model is as before.

            InsufficientMemoryError: For lack of memory; this model is as before.

            CapabilityError: Several sequences, or embeddings, but the model has not.

            ParameterError: A parameter does not suit this model.
        """
        params = merge(ContextParams, params, fields)
        self._check()
        if params.sequences > 1:
            self.require(Capability.MULTI_SEQUENCE)
        if params.embeddings:
            self.require(Capability.EMBEDDING)
        if params.context_size == "auto":
            trained = self.info.trained_context or AUTO_CONTEXT_SIZE
            params = evolve(params, context_size=min(trained, AUTO_CONTEXT_SIZE))
        with self._use() as native:
            return Context(self, native.create_context(params), self._exclusion())

    acreate_context = twin(create_context)

    # -- text and tokens ---------------------------------------------------------------

    def tokenize(
        self, text: str | bytes, *, special: bool = False, add_bos: bool = False
    ) -> list[int]:
        """
        Turn text into tokens.

        Args:
            text: Any text; bytes are taken as UTF-8, valid or not.

            special: Let the text of control tokens become control tokens. Never do
                that with text from users.

            add_bos: Put the begin token in front, if the model has one.
        """
        parts: Iterable[str | int | bytes] = [text]
        if special:
            if isinstance(text, bytes):
                text = text.decode("utf-8", errors="replace")
            parts = self._split_special(text)
        tokens = self.encode(parts)
        if add_bos and self.info.bos_token is not None:
            tokens.insert(0, self.info.bos_token)
        return tokens

    def encode(self, parts: Iterable[str | int | bytes]) -> list[int]:
        """Tokens of text parts and of control tokens that are numbers already."""
        tokens: list[int] = []
        with self._use() as native:
            for part in parts:
                if isinstance(part, int):
                    tokens.append(part)
                else:
                    if isinstance(part, str):
                        part = part.encode("utf-8", errors="replace")
                    tokens.extend(native.tokenize(part))
        return tokens

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        texts = sorted(self.info.special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def _split_special(self, text: str) -> Iterable[str | int]:
        end = 0
        for match in self._special_pattern.finditer(text):
            if match.start() > end:
                yield text[end : match.start()]
            yield self.info.special_tokens[match.group()]
            end = match.end()
        if end < len(text):
            yield text[end:]

    def piece(self, token: int) -> bytes:
        """
        The bytes of one token, perhaps a part of a character; control tokens have none.

        Raises:
            ValueError: The vocabulary has no such token.
        """
        self._check()
        return self._pieces.of(token)

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD."""
        self._check()
        return b"".join(map(self._pieces.of, tokens)).decode("utf-8", errors="replace")

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """
        Raises:
            ValueError: One of them is not a token number of this vocabulary.
        """
        self._pieces.check(tokens)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """
        The model's own chat template.

        Raises:
            ChatTemplateError: It has none, or one that cannot be used.
        """
        return self.make_chat_template(self.info.chat_template)

    def make_chat_template(self, source: str | None) -> ChatTemplate:
        """A chat template over this model's vocabulary."""
        from llmcore.chat_template import ChatTemplate

        texts = {number: text for text, number in self.info.special_tokens.items()}
        return ChatTemplate(
            source,
            special_tokens=self.info.special_tokens,
            bos_token=texts.get(_number(self.info.bos_token)),
            eos_token=texts.get(_number(self.info.eos_token)),
        )


def _number(token: int | None) -> int:
    return -1 if token is None else token


def _close(native: Any) -> None:
    native.close()
