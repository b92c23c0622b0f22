"""
`Serving`: the requests that a `ModelManager` answers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from llmcore.lifecycle import Resource
from llmcore.manager.direct import Direct
from llmcore.manager.keeper import Keeper
from llmcore.manager.requests import accepted
from llmcore.stream import Stream, answer_of
from llmcore.twins import twin, unless_cancelled


class Serving(Resource):
    """What all managers can be asked; see `ModelManager`."""

    _keeper: Keeper

    def stream(
        self, id: Hashable, prompt: str, *, queue: float | None = None, **options: Any
    ) -> Stream:
        """
        Continue a text, and read the answer as it is made.

        The request holds the model from here to the end of the stream: nothing evicts
        it meanwhile.

        Args:
            id: Of a model, or `DEFAULT`.

            prompt: Plain text.

            queue: Seconds to wait for a free sequence; None for the
                ``request_timeout`` that the model was loaded with.

            options: See `Sequence.generate`.

        Raises:
            NotLoadedError: There is none, or it is not ready: also a `ValueError`, and
                raised here, not by the stream.

            CapabilityError: It was not loaded to generate.

            QueueFullError: Too many requests wait already.

            OperationTimeoutError: No sequence became free in time.

            ContextOverflowError: The prompt does not fit.
        """
        self._check()
        with accepted(self._keeper, id, "generate") as request:
            timeout = request.timeout(queue)
            stream = request.backing.generate(prompt, timeout, options)
            return request.until_over(stream)

    def generate(
        self, id: Hashable, prompt: str, *, queue: float | None = None, **options: Any
    ) -> str:
        """Continue a text; arguments and errors as for `stream`."""
        return self.stream(id, prompt, queue=queue, **options).result.text

    def stream_chat(
        self,
        id: Hashable,
        messages: Sequence[Any],
        *,
        queue: float | None = None,
        **options: Any,
    ) -> Stream:
        """`chat`, read as the answer is made."""
        self._check()
        with accepted(self._keeper, id, "chat") as request:
            timeout = request.timeout(queue)
            stream = request.backing.chat(messages, timeout, options)
            return request.until_over(stream)

    def chat(
        self,
        id: Hashable,
        messages: Sequence[Any],
        *,
        queue: float | None = None,
        **options: Any,
    ) -> str:
        """
        Answer a conversation, that the caller keeps.

        Args:
            id: Of a model, or `DEFAULT`.

            messages: All of it: `Message` objects, pairs, or dicts of ``role`` and
                ``content``; the last one by the user.

            queue: As for `stream`; so are ``options`` and errors.

            options: See `Sequence.generate`.
        """
        return self.stream_chat(id, messages, queue=queue, **options).result.text

    def embed(
        self, id: Hashable, text: str, *, queue: float | None = None
    ) -> list[float]:
        """
        The vector of a text, ``embedding_size`` numbers, not normalised.

        Raises:
            CapabilityError: The model was not loaded with the capability ``"embed"``.

            NotLoadedError: There is none, or it is not ready.
        """
        self._check()
        with accepted(self._keeper, id, "embed") as request:
            assert isinstance(request.backing, Direct)
            try:
                return request.backing.embed(text, request.timeout(queue))
            finally:
                request.close()

    async def agenerate(self, id: Hashable, prompt: str, **options: Any) -> str:
        """`generate` without blocking the event loop; a cancelled task ends it."""
        return await answer_of(partial(self.stream, id, prompt, **options))

    async def achat(self, id: Hashable, messages: Sequence[Any], **options: Any) -> str:
        """`chat` without blocking the event loop; a cancelled task ends it."""
        return await answer_of(partial(self.stream_chat, id, messages, **options))

    async def astream(self, id: Hashable, prompt: str, **options: Any) -> Stream:
        """`stream`, without blocking the event loop while it waits for its turn."""
        return await unless_cancelled(
            partial(self.stream, id, prompt, **options), undo=Stream.close
        )

    async def astream_chat(
        self, id: Hashable, messages: Sequence[Any], **options: Any
    ) -> Stream:
        """`stream_chat`, without blocking the event loop while it waits."""
        return await unless_cancelled(
            partial(self.stream_chat, id, messages, **options), undo=Stream.close
        )

    aembed = twin(embed)
