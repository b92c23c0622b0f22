"""
`IsolatedModel`: stands for a model in the child.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from llmcore.errors import BackendCrashedError, BackendError, ModelLoadError
from llmcore.isolation.checks import check_info, check_tokens
from llmcore.isolation.context import IsolatedContext
from llmcore.isolation.host import Host
from llmcore.isolation.process import EngineProcess
from llmcore.isolation.wire import BACKEND
from llmcore.spi import BackendModel, Progress
from llmcore.values import (
    Capability,
    ContextParams,
    ModelInfo,
    ModelParams,
    evolve,
)


def with_sampling(capabilities: frozenset[Capability]) -> frozenset[Capability]:
    """Where there are logits, core's own sampler in the child is as good as native."""
    if Capability.LOGITS in capabilities:
        return capabilities | {Capability.NATIVE_SAMPLING}
    return capabilities


class IsolatedModel(BackendModel):
    """
    Lives until `close`. Any thread.

    Args:
        host: The process.

        path: The file.

        params: How to load it.

        progress: Called in this thread.
    """

    def __init__(
        self, host: Host, path: Path | None, params: ModelParams, progress: Progress
    ) -> None:
        self.host = host
        self.number = host.number()
        self._path = path
        # The child may have another working directory by now.
        self._file = None if path is None else os.fsencode(path.absolute())
        self._params = params
        self._loading = threading.Lock()
        self._process: EngineProcess | None = None
        self.pieces: dict[int, bytes] = {}
        """Of tokens that were drawn, which came with them."""
        furthest = 0.0

        def report(share: float) -> bool:  # a second try does not begin at 0 again
            nonlocal furthest
            furthest = max(furthest, share)
            return progress(furthest)

        loaded = host.run(
            lambda process: self._load(process, report),
            partial(ModelLoadError, path),
        )
        self._loaded = loaded
        self._info = evolve(loaded, capabilities=with_sampling(loaded.capabilities))

    def _load(self, process: EngineProcess, progress: Progress) -> ModelInfo:
        arguments = self.number, self._file, self._params
        try:
            info: ModelInfo = process.call(
                "load_model", BACKEND, *arguments, check=check_info, progress=progress
            )
        except BaseException as error:
            process.discard(self.number)
            if isinstance(error, ModelLoadError):  # the path as it was given
                raise ModelLoadError(self._path, error.reason) from error.__cause__
            raise
        self._process = process
        return info

    def ready(self, process: EngineProcess) -> EngineProcess:
        """The process, with this model in it."""
        if self._process is not process:
            with self._loading:
                if self._process is not process:
                    self._load_again(process)
        return process

    def _load_again(self, process: EngineProcess) -> None:
        info = self._load(process, lambda share: True)
        if info != self._loaded:
            process.discard(self.number)
            self._process = None
            raise BackendError(
                f"model {self._info.name!r} is another one since the engine was "
                "started again: load it anew"
            )

    @property
    def info(self) -> ModelInfo:
        """As the child told it once."""
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        """Tokens of a text."""
        check = check_tokens(self._info.vocab_size)
        tokens: list[int] = self.host.run(
            lambda process: self.ready(process).call(
                "tokenize", self.number, text, check=check
            ),
            BackendError,
        )
        return tokens

    def piece(self, token: int) -> bytes:
        """Bytes of a token."""
        piece = self.pieces.get(token)
        if piece is None:
            piece = self.host.run(
                lambda process: self.ready(process).call("piece", self.number, token),
                BackendError,
            )
        return piece

    def create_context(self, params: ContextParams) -> IsolatedContext:
        """A context, on a connection of its own."""
        return IsolatedContext(self, params)

    def close(self) -> None:
        """Free it in the child, if that lives."""
        process = self.host.process
        if self._process is process:
            with suppress(BackendCrashedError):
                process.call("close", self.number)
