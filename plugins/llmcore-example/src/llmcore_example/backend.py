"""The engine: it counts what follows what in a text, and goes on like that."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from llmcore.errors import ModelLoadError, OperationCancelledError
from llmcore.spi import Backend, BackendContext, BackendModel, Batch, Progress
from llmcore.values import ContextMemory, ContextParams, Device, ModelInfo, ModelParams
from llmcore_example import INFO

MAGIC = b"markov\n"  # the first line of a model file; the rest is the text
ORDER = 4  # how many tokens it looks back at, at most
END = 256  # the token after the last byte of the text; all others are bytes


class ExampleBackend(Backend):
    """One instance of the engine; lives until `close`."""

    def devices(self) -> Sequence[Device]:
        return [Device(name="cpu", kind="cpu")]

    def load_model(
        self, path: Path | None, params: ModelParams, progress: Progress
    ) -> ExampleModel:
        assert path is not None  # core sees to it: INFO declares a format
        try:
            with path.open("rb") as file:
                text = file.read() if file.readline(16) == MAGIC else b""
        except OSError as error:
            raise ModelLoadError(path, f"cannot read it: {error.strerror}") from error
        if not text:
            raise ModelLoadError(path, "it is not the line 'markov' and then a text")
        model = ExampleModel()
        for share in model.learn([*text, END]):
            if not progress(share):
                raise OperationCancelledError(f"loading stopped at {share:.0%}")
        return model

    def close(self) -> None:
        """Nothing here is native: there is nothing to free."""


class ExampleModel(BackendModel):
    """What was counted; shared by its contexts, and not changed once it is learnt."""

    def __init__(self) -> None:
        self._counts = defaultdict[tuple[int, ...], Counter[int]](Counter)
        self._info = ModelInfo(
            architecture="markov",
            vocab_size=END + 1,
            build="markov 1.0",
            end_tokens=frozenset({END}),
            special_tokens={"<end>": END},
            capabilities=INFO.capabilities,
        )

    def learn(self, tokens: list[int]) -> Iterator[float]:
        """Count what follows each run of up to `ORDER` tokens; yields progress."""
        for at, token in enumerate(tokens):
            if at % 65_536 == 0:
                yield at / len(tokens)
            for start in range(max(0, at - ORDER), at + 1):
                self._counts[tuple(tokens[start:at])][token] += 1
        yield 1.0

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Each history smooths the next longer one (MacKay and Peto 1995)."""
        p = np.full(END + 1, 1 / (END + 1))
        for length in range(min(ORDER, len(tokens)) + 1):
            counts = self._counts.get(tuple(tokens[len(tokens) - length :]), Counter())
            p[list(counts)] += list(counts.values())
            p /= p.sum()
        return np.array(np.log(p), np.float32)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def tokenize(self, text: bytes) -> list[int]:
        return list(text)

    def piece(self, token: int) -> bytes:
        return b"" if token == END else bytes([token])

    def create_context(self, params: ContextParams) -> ExampleContext:
        return ExampleContext(self, evolve(params, threads=1, threads_batch=1))

    def close(self) -> None:
        self._counts.clear()


class ExampleContext(BackendContext):
    """A list of tokens for each sequence; lives until `close`."""

    def __init__(self, model: ExampleModel, params: ContextParams) -> None:
        self._model = model
        self._params = params
        self._held: list[list[int]] = [[] for _ in range(params.sequences)]
        self._rows: dict[int, NDArray[np.float32]] = {}

    @property
    def params(self) -> ContextParams:
        return self._params

    def decode(self, batch: Batch) -> None:
        self._rows.clear()
        for row, (token, _, number, output) in enumerate(zip(*batch, strict=True)):
            self._held[number].append(token)
            if output:
                self._rows[row] = self._model.logits(self._held[number])

    def logits(self, row: int) -> NDArray[np.float32]:
        return self._rows[row]

    def bounds(self, sequence: int) -> tuple[int, int]:
        last = len(self._held[sequence]) - 1
        return min(0, last), last  # (-1, -1) if it is empty

    def remove(self, sequence: int, start: int, end: int | None = None) -> bool:
        if end is None:  # else there might be a hole, which a list cannot have
            del self._held[sequence][start:]
        return end is None

    def clear(self, sequence: int | None = None, *, data: bool = False) -> None:
        for held in self._held if sequence is None else [self._held[sequence]]:
            held.clear()

    def memory(self) -> ContextMemory:
        return ContextMemory(kv_cache=8 * sum(map(len, self._held)))

    def close(self) -> None:
        self._held.clear()
