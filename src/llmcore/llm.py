"""
`LLM`: a model and its context in one object that is called like a function.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import field, frozen, validators

from llmcore.context import Context
from llmcore.lifecycle import Resource
from llmcore.opening import get_llama
from llmcore.params.isolation import Isolation, Restart
from llmcore.plugins import Gpu
from llmcore.sequence import Sequence
from llmcore.spi import Backend
from llmcore.stream import Stream
from llmcore.values import ContextParams, ModelParams, SamplingParams, evolve, merge


@frozen(kw_only=True)
class GenerationConfig:
    """
    What one call of an `LLM` should do.

    Args:
        max_tokens: End after so many.

        context_size: Tokens for prompt and answer together; None means just enough.

        stop: End before the earliest of these texts.

        sampling: How tokens are chosen.
    """

    max_tokens: int = field(default=256, validator=validators.ge(1))
    context_size: int | None = field(
        default=None, validator=validators.optional(validators.ge(8))
    )
    stop: tuple[str, ...] = field(default=(), converter=tuple)
    sampling: SamplingParams = field(factory=SamplingParams)


class LLM(Resource):
    """
    Lives until `dispose`; `close` only frees its context, and the next call makes one.

    The context is made by the first call and kept while it is large enough and no
    parameter of it changes; it grows and never shrinks. Each call starts with an empty
    cache, so that calls cannot see each other.

    Args:
        path: The model file.

        backend: As for `get_llama`, and so are ``gpu``, ``isolation`` and ``restart``.

        context: The parameters of the contexts it makes, except for their size; also
            the attribute ``context_params``, which may be changed between calls.

        fields: Those of `ModelParams`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        backend: str | Backend = "auto",
        gpu: Gpu = "auto",
        isolation: Isolation | None = None,
        restart: Restart = "never",
        context: ContextParams | None = None,
        **fields: Any,
    ) -> None:
        self.context_params = context or ContextParams()
        self._sequence: Sequence | None = None
        self._made: ContextParams | None = None
        super().__init__("llm")
        try:
            llama = get_llama(
                backend, gpu=gpu, isolation=isolation, restart=restart
            ).move_to(self)
            self.model = llama.load_model(path, params=merge(ModelParams, None, fields))
        except BaseException:
            self.dispose()
            raise

    def __call__(
        self, prompt: str, config: GenerationConfig | None = None, **fields: Any
    ) -> str:
        """
        Continue a text and return what follows.

        Args:
            prompt: Plain text; see `ChatSession` for conversations.

            config: What to do.

            fields: Or the fields of `GenerationConfig` one by one, over ``config``.

        Raises:
            ContextOverflowError: ``context_size`` is too small for the prompt.

            SequenceBusyError: Another call runs.
        """
        return self.stream(prompt, config, **fields).result.text

    def stream(
        self, prompt: str, config: GenerationConfig | None = None, **fields: Any
    ) -> Stream:
        """Like calling it, but the answer comes piece by piece."""
        self._check()
        config = merge(GenerationConfig, config, fields)
        info = self.model.info
        tokens = self.model.tokenize(prompt, add_bos=info.add_bos)
        sequence = self._ready(config, len(tokens))
        return sequence.generate(
            tokens, config.sampling, max_tokens=config.max_tokens, stop=config.stop
        )

    def _ready(self, config: GenerationConfig, prompt: int) -> Sequence:
        """The sequence to use: the one there is if it fits, else a new one."""
        size = max(config.context_size or prompt + config.max_tokens, 8)
        wanted = evolve(self.context_params, context_size=size, sequences=1)
        sequence, made = self._sequence, self._made
        if sequence is not None and made is not None and not sequence.disposed:
            sequence.clear()  # also refuses if another call is running on it
            if size <= sequence.size and wanted == evolve(made, context_size=size):
                return sequence
        self.close()
        sequence = self.model.create_context(wanted).get_sequence()
        self._sequence, self._made = sequence, wanted
        return sequence

    @property
    def context(self) -> Context | None:
        """The context of the last call; None before the first and after `close`."""
        return None if self._sequence is None else self._sequence.context

    def close(self) -> None:
        """Free the context and keep the model; the next call makes a new context."""
        sequence, self._sequence, self._made = self._sequence, None, None
        if sequence is not None:
            sequence.context.dispose()

    def reset_context(self) -> None:
        """Have the next call start with a new context."""
        self._check()
        self.close()
