"""
Damaged model files that the engine itself sees, in a child that may die of one.

Core refuses nearly all of them before any engine is asked; at the seam nobody does.
"""

from __future__ import annotations

import random
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmcore.errors import BackendCrashedError, LlmcoreError
from llmcore.isolation import IsolatedBackend, isolated
from llmcore.spi import Batch
from llmcore.values import BackendInfo, ContextParams, ModelParams

WATCHDOG = 20.0
MEMORY = 8 << 30
"""Bytes that a child may map, so that a number in a file cannot fill this machine."""


class Trials:
    """
    Children of one backend, one after the other; lives until `close`.

    Attributes:
        endings: How children ended.
    """

    def __init__(self, info: BackendInfo) -> None:
        self._info = info
        self._backend: IsolatedBackend | None = None
        self.endings = Counter[str]()

    def fate(self, path: Path) -> str:
        """
        What becomes of a file: ``"evaluated"``, ``"refused"`` or ``"crashed"``.

        Refused is an error that the engine reports, at the load or later. Nothing but
        `LlmcoreError` may come out of a child, so anything else is raised.
        """
        try:
            evaluate(self._engine(), path)
        except BackendCrashedError as crash:
            self.endings[ending(crash)] += 1
            self.close()
            return "crashed"
        except LlmcoreError:
            return "refused"
        return "evaluated"

    def _engine(self) -> IsolatedBackend:
        if self._backend is None:
            self._backend = isolated(self._info, watchdog=WATCHDOG)
            if hasattr(resource, "prlimit"):  # Linux
                pid = self._backend.pid
                resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
                resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        return self._backend

    def close(self) -> None:
        """End the child."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def ending(crash: BackendCrashedError) -> str:
    """How a child ended, without what is different each time."""
    first = str(crash).partition(";")[0].partition(" engine ")[2]
    return first.partition(" (")[0].partition(" to '")[0]


def evaluate(backend: IsolatedBackend, path: Path) -> int:
    """Load a file and choose the token that it finds most likely after some others."""
    with closing(backend.load_model(path, ModelParams(), lambda share: True)) as model:
        tokens = model.tokenize(b"a b")[:4] or [0]
        params = ContextParams(context_size=64, batch_size=16, threads=1)
        with closing(model.create_context(params)) as context:
            count = len(tokens)
            outputs = [False] * (count - 1) + [True]
            context.decode(Batch(tokens, list(range(count)), [0] * count, outputs))
            return int(context.logits(count - 1).argmax())


@contextmanager
def damaged(file: Path, header: int, chance: random.Random) -> Iterator[None]:
    """
    Some bytes of a file are wrong while this lasts.

    Args:
        header: Bytes before the weights; half of the damage is there.
    """
    size = file.stat().st_size
    start, end = chance.choice([(0, header), (header, size)])
    places = [
        chance.randrange(start, end - 8) for _ in range(chance.choice((1, 4, 16)))
    ]
    with file.open("r+b", buffering=0) as stream:

        def swap(position: int, new: bytes) -> bytes:
            stream.seek(position)
            old = stream.read(len(new))
            stream.seek(position)
            stream.write(new)
            return old

        replaced = [
            (place, swap(place, chance.randbytes(chance.choice((1, 2, 4, 8)))))
            for place in places
        ]
        try:
            yield
        finally:
            for place, old in reversed(replaced):
                swap(place, old)
