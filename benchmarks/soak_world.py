"""
What a soak shares between its programs: engines, contexts, right answers, tallies.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from attrs import define, field

import llmcore
from llmcore.engine.generation import GenerationResult
from llmcore.errors import LlmcoreError
from llmcore.lifecycle import collect_forgotten
from llmcore.testing import NullBackend, NullScript, null_backend
from llmcore.values import CacheKind

NEAR = 0.02
"""Two logits so close may change places when a batch has another shape."""

PATIENCE = 10.0
"""Seconds until what was forgotten must be freed."""

SIZES: dict[str, Any] = {
    **{"context_size": 256, "sequences": 3, "max_waiting": 2, "threads": 1},
    **{"batch_size": 32, "micro_batch_size": 16, "checkpoint_bytes": 100_000},
}


class Wrong(Exception):
    """Something that must never be; a violation."""


def claim(truth: object, what: str) -> None:
    """
    Raises:
        Wrong: It is not true.
    """
    if not truth:
        raise Wrong(what)


class Engine(NamedTuple):
    """
    The engine to soak.

    Attributes:
        backend: Its name; ``"null"`` or that of a real one.

        path: The model's file; None for ``"null"``.
    """

    backend: str
    path: Path | None

    def open(
        self, *, deterministic: bool = True, kind: CacheKind | None = None
    ) -> Place:
        """A new instance with a model and a context; the kind is for ``"null"``."""
        null = None
        if self.backend == "null":
            null = null_backend(NullScript(cache_kind=kind or CacheKind.FULL))
        llama = llmcore.get_llama(null or self.backend)
        model = llama.load_model(self.path)
        return Place.over(llama, model, null, deterministic=deterministic)


@define(eq=False)
class Place:
    """
    A context, with what is above it and the sequences that were taken of it.

    Attributes:
        null: The null backend under it, if it is one.

        sequences: Those that somebody may use; any thread adds to them.
    """

    llama: llmcore.Llama
    model: llmcore.Model
    null: NullBackend | None
    context: llmcore.Context
    sequences: list[llmcore.Sequence] = field(factory=list)

    @classmethod
    def over(
        cls,
        llama: llmcore.Llama,
        model: llmcore.Model,
        null: NullBackend | None,
        *,
        deterministic: bool,
    ) -> Place:
        """A new context of a model."""
        context = model.create_context(deterministic=deterministic, **SIZES)
        return cls(llama, model, null, context)

    @property
    def exact(self) -> bool:
        """Whether not even a near tie comes out differently beside neighbours."""
        return self.null is not None or self.context.params.deterministic

    def again(self, model: llmcore.Model) -> Place:
        """The same kind of context, over this or another model of the instance."""
        deterministic = self.context.params.deterministic
        return self.over(self.llama, model, self.null, deterministic=deterministic)

    def check(self) -> None:
        """
        When nothing runs, as many sequences are free as nobody has.

        Raises:
            Wrong: They are not, or the engine was used in a way that it forbids.
        """
        self.sequences[:] = [one for one in self.sequences if not one.disposed]
        free = SIZES["sequences"] - len(self.sequences)
        deadline = time.monotonic() + PATIENCE
        while self.context.sequences_left != free and time.monotonic() < deadline:
            gc.collect()
            collect_forgotten()
            time.sleep(0.01)  # a dropped one is freed when its last step ended
        left = self.context.sequences_left
        claim(left == free, f"{left} sequences are free, {free} are not taken")
        broken = [] if self.null is None else self.null.ledger.violations
        claim(not broken, f"violations in the ledger: {broken}")

    def check_disposed(self) -> None:
        """
        After the instance was disposed nothing works, and nothing is left.

        Raises:
            Wrong: Something is.
        """
        claim(all(one.disposed for one in self.sequences), "a sequence outlives all")
        if self.null is not None:
            broken, live = self.null.ledger.violations, self.null.ledger.live
            claim(not broken, f"violations in the ledger: {broken}")
            claim(not live, f"not freed: {live}")


class Oracle:
    """
    Tells the right greedy answers: a fresh deterministic context makes each.

    Args:
        engine: Of which it opens an instance of its own.

    Attributes:
        near_ties: How many answers were another one that is as good.
    """

    def __init__(self, engine: Engine) -> None:
        self._home = engine.open()
        self._lock = threading.Lock()
        self.near_ties = 0
        self.right = lru_cache(maxsize=2000)(self._right)

    def _right(self, prompt: tuple[int, ...], count: int) -> GenerationResult:
        with self._fresh() as sequence:
            stream = sequence.generate(prompt, temperature=0.0, max_tokens=count)
            return stream.result

    @contextmanager
    def _fresh(self) -> Iterator[llmcore.Sequence]:
        home = self._home
        with self._lock, home.again(home.model).context as context:
            yield context.get_sequence()

    def check(self, result: GenerationResult, count: int, *, exact: bool) -> None:
        """
        Args:
            result: A greedy answer that came to its end.

            count: Its ``max_tokens``.

            exact: Whether even a near tie may not come out differently.

        Raises:
            Wrong: It is not the right one.
        """
        prompt = tuple(result.receipt.prompt)
        right = self.right(prompt, count)
        told, wanted = _told(result), _told(right)
        if result.finish_reason == "stopped":  # any start of it is right
            told, wanted = result.tokens, right.tokens[: len(result.tokens)]
        if told == wanted:
            return
        at = _agreed(result.tokens, right.tokens)
        tie = not exact and self._is_near_tie([*prompt, *right.tokens[:at]])
        claim(tie, f"{prompt}: got {told}, right is {wanted}; {result.usage}")
        self.near_ties += 1

    def _is_near_tie(self, tokens: Sequence[int]) -> bool:
        with self._fresh() as sequence:
            sequence.evaluate(tokens)
            second, first = sorted(sequence.logits)[-2:]
        return bool(first - second < NEAR)

    def close(self) -> None:
        """Free it."""
        self._home.llama.dispose()


def _told(result: GenerationResult) -> tuple[object, ...]:
    return result.tokens, result.text, result.finish_reason


def _agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two answers have in common from the start."""
    pairs = enumerate(zip(a, b, strict=False))
    unequal = (n for n, (left, right) in pairs if left != right)
    return next(unequal, min(len(a), len(b)))


class Tally:
    """What happened so far; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = Counter[str]()
        self.errors = Counter[str]()
        self.violations: list[str] = []
        self._since: dict[object, tuple[float, str]] = {}

    def add(self, what: str) -> None:
        """Count one more of something."""
        with self._lock:
            self.counts[what] += 1

    def refused(self, error: LlmcoreError) -> None:
        """Count an error that programs may get which know nothing of each other."""
        with self._lock:
            self.errors[type(error).__name__] += 1

    def broke(self, what: str) -> None:
        """Tell of a violation."""
        with self._lock:
            self.violations.append(what)
        print(f"VIOLATION: {what}", flush=True)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Something that must not hang; see `longest`."""
        key = object()
        with self._lock:
            self._since[key] = (time.monotonic(), what)
        try:
            yield
        finally:
            with self._lock:
                del self._since[key]

    def longest(self) -> tuple[float, str]:
        """What has run for the most seconds by now, and for how many."""
        with self._lock:
            started, what = min(self._since.values(), default=(time.monotonic(), ""))
        return time.monotonic() - started, what


def watch(tally: Tally, longest: float, hangs: Callable[[str], object]) -> None:
    """Start to look, each second, whether something hangs."""

    def look() -> None:
        never = threading.Event()
        while not never.wait(1):
            seconds, what = tally.longest()
            if seconds > longest:
                hangs(what)

    threading.Thread(target=look, name="watchdog", daemon=True).start()
