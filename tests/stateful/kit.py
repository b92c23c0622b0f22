"""
What the stateful tests share: engines to test, and who tells the right answers.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define, field

import llmcore
from llmcore.engine.generation import GenerationResult
from llmcore.lifecycle import collect_forgotten
from llmcore.prediction import Predictor, PromptLookup
from llmcore.testing import NullBackend, NullScript, null_backend
from llmcore.values import CacheKind

PATIENCE = 30.0
"""Seconds after which whoever waits hangs; a correct run never gets there."""

EFFORT = int(os.environ.get("LLMCORE_EFFORT", "1"))
"""Of that many times as many programs; more than 1 to look for new defects."""

NEAR = 0.02
"""Two logits so close may change places when a batch has another shape."""

Options = Mapping[str, Any]


def eventually(condition: Callable[[], object], what: str) -> None:
    """Return as soon as something is true that no event announces."""
    deadline = time.monotonic() + PATIENCE
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        never.wait(0.0002)


@contextmanager
def watched(what: str) -> Iterator[None]:
    """Fail, with the stack of every thread, if the block is not over in time."""
    over = threading.Event()

    def watch() -> None:
        if not over.wait(PATIENCE):
            os.write(2, f"{what} hangs:\n".encode())
            faulthandler.dump_traceback(2)  # past what captures output

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def shown_nothing() -> Iterator[None]:
    """Let resources be forgotten without a warning: that is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
        collect_forgotten()  # and not after this block, by the thread that does it


class Liar(Predictor):
    """Guesses the same few tokens whatever was said; now and then it is right."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens

    def start(self, tokens: Sequence[int]) -> None:
        """Nothing is learnt."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Nothing is learnt."""

    def predict(self, limit: int) -> Sequence[int]:
        """Always the same."""
        return self._tokens[:limit]


def predictor_named(name: str | None, tokens: Sequence[int]) -> Predictor | None:
    """A new predictor, for one answer."""
    if name == "liar":
        return Liar(tokens)
    return PromptLookup(most=3, longest=2, shortest=1) if name == "lookup" else None


@define(eq=False, slots=False)
class Bench:
    """
    An engine to test; lives as long as the tests of it.

    Attributes:
        params: Of its contexts.

        alphabet: Tokens to make prompts of: few, so that prompts have a lot in common.

        stops: Stop strings that its answers contain now and then.

        path: Of the model.

        script: What a null backend is; None for a real one.

        exact: Whether an answer never depends on what else is in its batch.

        full: Whether its cache can drop its end.

        shifts: Whether moved tokens are as good as those evaluated in their place.
    """

    params: dict[str, Any]
    alphabet: Sequence[int]
    stops: Sequence[str]
    path: Path | None = None
    script: dict[str, Any] | None = None
    exact: bool = True
    full: bool = True
    shifts: bool = False
    _folder: Any = field(factory=tempfile.TemporaryDirectory, init=False)
    _known: dict[Any, GenerationResult] = field(factory=dict, init=False)
    _llama: llmcore.Llama | None = field(default=None, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    @property
    def state_file(self) -> Path:
        """Where one sequence can be saved."""
        return Path(self._folder.name) / "one.state"

    def llama(self) -> tuple[llmcore.Llama, NullBackend | None]:
        """A new instance, and the null backend under it if it is one."""
        if self.script is None:
            return llmcore.get_llama("llama_cpp"), None
        backend = null_backend(NullScript(**self.script))
        return llmcore.get_llama(backend), backend

    def right(self, prompt: Sequence[int], options: Options) -> GenerationResult:
        """The answer of a fresh sequence of a fresh context of a model of its own."""
        key = (tuple(prompt), tuple(sorted(options.items())))
        with self._lock:
            if key not in self._known:
                with self._fresh() as sequence:
                    self._known[key] = sequence.generate(prompt, **options).result
            return self._known[key]

    @contextmanager
    def _fresh(self) -> Iterator[llmcore.Sequence]:
        with self._right_model.create_context(**self.params) as context:
            yield context.get_sequence()

    def check(
        self, prompt: Sequence[int], options: Options, result: GenerationResult
    ) -> None:
        """Fail unless this answer is the right one."""
        right = self.right(prompt, options)
        told = (result.tokens, result.text, result.finish_reason)
        if told == (right.tokens, right.text, right.finish_reason):
            return
        at = agreed(result.tokens, right.tokens)
        if not self.exact and self._is_near_tie([*prompt, *right.tokens[:at]]):
            return
        raise AssertionError(
            f"{list(prompt)} {dict(options)}: from token {at} on got {told}, right is "
            f"{(right.tokens, right.text, right.finish_reason)}"
        )

    @cached_property
    def _right_model(self) -> llmcore.Model:
        self._llama = self.llama()[0]
        return self._llama.load_model(self.path)

    def _is_near_tie(self, tokens: Sequence[int]) -> bool:
        with self._lock, self._fresh() as sequence:
            sequence.evaluate(tokens)
            second, first = sorted(sequence.logits)[-2:]
        return bool(first - second < NEAR)

    def close(self) -> None:
        """Free what tells the right answers."""
        if self._llama is not None:
            self._llama.dispose()
        self._folder.cleanup()


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two answers have in common from the start."""
    pairs = zip(a, b, strict=False)
    unequal = (n for n, (left, right) in enumerate(pairs) if left != right)
    return next(unequal, min(len(a), len(b)))


def null_bench(kind: CacheKind, **params: Any) -> Bench:
    """The null engine with a cache of this kind."""
    sizes = {"context_size": 96, "sequences": 3, "max_waiting": 2}
    batches = {"batch_size": 16, "micro_batch_size": 8, "checkpoint_bytes": 2000}
    return Bench(
        params={**sizes, **batches, **params},
        alphabet=(97, 98, 101),
        stops=("e", " a", "th"),
        script={"cache_kind": kind},
        full=kind is CacheKind.FULL,
        shifts=kind is CacheKind.FULL,
    )


def llama_cpp_bench(path: Path, **params: Any) -> Bench:
    """A real engine with a small model."""
    sizes = {"context_size": 256, "sequences": 3, "max_waiting": 2, "threads": 1}
    batches = {"batch_size": 32, "micro_batch_size": 16}
    return Bench(
        params={**sizes, **batches, **params},
        alphabet=(300, 310, 320),
        stops=("e", "a", "x"),
        path=path,
        exact=bool(params.get("deterministic")),
    )
