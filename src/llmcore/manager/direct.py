"""
`Direct`: a model without a context of its own; each request is alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llmcore.chat import Chat
from llmcore.context import Context
from llmcore.errors import CapabilityError
from llmcore.lifecycle import Scope
from llmcore.model import Model
from llmcore.sequence import Sequence as TokenSequence
from llmcore.stream import Stream
from llmcore.values import ContextParams, evolve


class Direct:
    """
    Lives as long as its model. Any thread.

    Args:
        model: What requests use.

        params: Of the contexts that are made for them.

        embedding: A context for embeddings, which requests share one after another.
    """

    def __init__(
        self, model: Model, params: ContextParams, embedding: Context | None
    ) -> None:
        self.model = model
        self._params = evolve(params, sequences=1, embeddings=False)
        self._embedding = embedding

    def generate(self, prompt: str, timeout: float, options: dict[str, Any]) -> Stream:
        """Continue a plain text, in a context of its own."""
        model = self.model
        tokens = model.tokenize(prompt, add_bos=model.info.add_bos)
        return self._alone(lambda own, line: line.generate(tokens, **options))

    def chat(
        self, messages: Sequence[Any], timeout: float, options: dict[str, Any]
    ) -> Stream:
        """Answer a conversation, in a context of its own."""
        return self._alone(
            lambda own, line: own(Chat(line)).stream(messages, **options)
        )

    def _alone(self, begin: Callable[[Any, TokenSequence], Stream]) -> Stream:
        """Begin a stream in a context that goes when the stream is over."""
        scope = Scope()
        try:
            context = scope.own(self.model.create_context(self._params))
            stream = begin(scope.own, scope.own(context.get_sequence()))
        except BaseException:
            scope.dispose()
            raise
        stream.when_over(partial(_dispose_soon, scope))
        return stream

    def embed(self, text: str, timeout: float) -> list[float]:
        """The vector of a text."""
        if self._embedding is None:
            raise CapabilityError(
                f"{self.model._node.label} was not loaded for embeddings: load it with "
                "capabilities=['embed']"
            )
        vector: list[float] = self._embedding.embed(text, timeout=timeout).tolist()
        return vector

    def info(self) -> dict[str, Any]:
        """Nothing is shared, so nothing can be busy."""
        return {}


def _dispose_soon(scope: Scope) -> None:
    """Dispose from a thread that may wait: the one that ends a stream may not."""
    threading.Thread(target=scope.dispose, name="llmcore-dispose", daemon=True).start()
