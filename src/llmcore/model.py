"""
`Model`: loaded weights and vocabulary, shared by the contexts on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcore.context import Context
from llmcore.engine.pieces import Pieces
from llmcore.lifecycle import Exclusion, Resource
from llmcore.memory import (
    Account,
    Footprint,
    Purpose,
    Reservation,
    releasing,
    settled,
    spread,
)
from llmcore.plugins.support import Support, require, support
from llmcore.seam import first_look
from llmcore.spi import BackendModel
from llmcore.twins import twin
from llmcore.values import (
    Capability,
    ContextParams,
    Device,
    ModelInfo,
    ModelParams,
    merge,
)

if TYPE_CHECKING:
    from llmcore.chat_template import ChatTemplate
    from llmcore.llama import Llama
    from llmcore.memory import Budget, Share
    from llmcore.memory.fitting import Fitted
    from llmcore.memory.ladder import Plan, Room, Step
    from llmcore.memory.shape import ModelShape


class Model(Resource):
    """
    Lives until it or its `Llama` is disposed. Any thread may use it.

    Made by `Llama.load_model`. ``fitted`` tells how, and what was given up for lack of
    memory.
    """

    def __init__(
        self,
        llama: Llama,
        native: BackendModel,
        path: Path | None,
        exclusion: Callable[[], Exclusion],
        placed: ModelParams,
        reservation: Reservation | None = None,
    ) -> None:
        self.path = path
        self._llama = llama
        self._placed = placed
        self.fitted: Fitted | None = None
        self._budget = llama.budget
        self._reservation = reservation
        self.backend = llama.backend
        self.info: ModelInfo = first_look(native, "info")
        self._exclusion = exclusion
        super().__init__(
            "model",
            parent=llama,
            handle=native,
            teardown=partial(_close, reservation),
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
        self,
        params: ContextParams | None = None,
        *,
        fit: Sequence[Step] | bool = False,
        within: Reservation | None = None,
        **fields: Any,
    ) -> Context:
        """
        Make a context: the memory in which sequences live.

        Args:
            params: How to create it.

            fit: What may be given up if memory is short: True for the usual ladder
                (`llmcore.memory.ladder.LADDER`), or steps of your own. What you give
                stays as it is.

            within: A reservation to take its memory from, where there is a budget.

            fields: Or the fields of `ContextParams` one by one, over ``params``.

        Raises:
            ContextCreationError: The engine could not; this model is as before.

            InsufficientMemoryError: For lack of memory; this model is as before.

            CapabilityError: Several sequences, or embeddings, but the model has not.

            ParameterError: A parameter does not suit this model.
        """
        from llmcore.memory import choosing

        pinned = choosing.given(ContextParams, params, fields)
        params = merge(ContextParams, params, fields)
        self._check()
        if params.sequences > 1:
            self.require(Capability.MULTI_SEQUENCE)
        if params.embeddings:
            self.require(Capability.EMBEDDING)
        what = f"a context of {self._node.label}"
        plan = choosing.context_plan(params, pinned, self.info.trained_context)
        context, fitted = choosing.create(
            plan,
            lambda plan: self._create(plan.context, what, within),
            self._room(params, what, within, fit),
            fit,
            what=what,
        )
        context.fitted = fitted
        return context

    acreate_context = twin(create_context)

    def _create(
        self, params: ContextParams, what: str, within: Reservation | None
    ) -> Context:
        reservation = None
        if self._budget is not None:
            rough = self._shape.from_info  # a guess refuses nothing: the engine knows
            expected = Footprint() if rough else self._estimate(params)
            reservation = self._budget.reserve(expected, what, within=within)
        with releasing(reservation):
            with self._use() as native:
                made = native.create_context(params)
                context = Context(self, made, self._exclusion(), reservation)
            return settled(context, reservation)

    def _room(
        self,
        params: ContextParams,
        what: str,
        within: Reservation | None,
        fit: Sequence[Step] | bool,
    ) -> Room:
        """What there is for a context: what is free, if that is to decide anything."""
        from llmcore.memory import choosing, limits
        from llmcore.memory.ladder import Room

        budget: Budget | Share | None = self._budget
        if budget is None and (fit or not isinstance(params.context_size, int)):
            budget = choosing.free_now(self._llama.devices())
        quantised = params.kv_type_k, params.kv_type_v
        if budget is None and not limits.bounded() and quantised == ("f16", "f16"):
            return Room()  # nothing to look at
        choosing.check_cache_types(params, self._shape)
        return Room(
            estimate=None if self._shape.from_info else self._needs,
            shortage=choosing.shortages(what, budget, within),
            allows=choosing.allowed(self._shape),
            layers=choosing.gpu_layers(self._shape, self._devices),
        )

    def _needs(self, plan: Plan) -> Footprint:
        return self._estimate(plan.context)

    # -- memory ------------------------------------------------------------------------

    def estimate(self, params: ContextParams | None = None, **fields: Any) -> Footprint:
        """
        What a context would use, in bytes, without making it; the weights not included.

        From the header of a GGUF file as llama.cpp counts, and else roughly, from what
        `info` tells.

        Args:
            params: How it would be created.

            fields: Or the fields of `ContextParams` one by one, over ``params``.
        """
        return self._estimate(merge(ContextParams, params, fields))

    def _estimate(self, params: ContextParams) -> Footprint:
        from llmcore.memory.estimate import estimate_context

        self._check()
        return estimate_context(
            self._shape, params, model=self._placed, devices=self._devices
        )

    def _expected_weights(self) -> Footprint:
        from llmcore.memory.estimate import estimate_weights

        return estimate_weights(self._shape, self._placed, devices=self._devices)

    @cached_property
    def _devices(self) -> Sequence[Device]:
        """Those that its layers may be on, with their memory when first asked for."""
        return self._llama._placing(self._placed)

    @cached_property
    def _shape(self) -> ModelShape:
        from llmcore.memory.estimate import shape_of_loaded

        return shape_of_loaded(self.path, self.info)

    def account(self) -> Account:
        """What it was expected to use, may use by the budget, and uses, in bytes."""
        return Account(
            label=self._node.label,
            estimated=self._expected_weights(),
            reserved={} if self._reservation is None else self._reservation.amounts,
            actual=self.footprint(),
        )

    def footprint(self) -> Footprint:
        """What its weights use, as the engine says."""
        self._check()
        sizes: dict[Purpose, int] = {"weights": self.info.size_bytes}
        return spread(sizes, self._devices, self._expected_weights)

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


def _close(reservation: Reservation | None, native: Any) -> None:
    try:
        native.close()
    finally:
        if reservation is not None:
            reservation.release()
