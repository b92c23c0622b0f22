"""
Threads that load, ask and unload at random, and what must be true all the while.

LLMCORE_STORM_MINUTES makes a storm last longer; with ``-s`` it tells what was done.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import frozen

import llmcore
from llmcore.errors import (
    AlreadyLoadedError,
    InsufficientMemoryError,
    NotLoadedError,
    NotReadyError,
    OperationCancelledError,
    QueueFullError,
)
from llmcore.manager import ModelManager

MINUTES = float(os.environ.get("LLMCORE_STORM_MINUTES", 0))
MODELS = 6
PROMPTS = ("what is the time?", "what is the matter?", "a story please", "hm")

DONE = {"answered", "dropped", "loaded", "unloaded"}

HANGS = 60.0
"""Seconds within which every operation must be over."""


@frozen(kw_only=True)
class Kind:
    """A model of the storm: how to load it, and what it answers to each prompt."""

    id: str
    load: Callable[[ModelManager, str, dict[str, Any]], object]
    answers: dict[str, str]


def answers_of(backend: Any, path: Any = None, **params: Any) -> dict[str, str]:
    """What a model answers when nothing else goes on."""
    with llmcore.get_llama(backend) as llama:
        model = llama.load_model(path)
        context = model.create_context(context_size=64, **params)
        sequence = context.get_sequence()
        answers = {}
        for prompt in PROMPTS:
            tokens = model.tokenize(prompt, add_bos=model.info.add_bos)
            sequence.clear()
            stream = sequence.generate(tokens, max_tokens=8, temperature=0)
            answers[prompt] = stream.result.text
        return answers


class Storm:
    """
    Lives as long as its threads.

    What may happen to an operation is that it is refused when it is asked for: the
    model is not there, or not yet; there is no room; too many wait. What was accepted
    is answered, and rightly.

    Args:
        manager: With room for some of the models at a time.

        kinds: The models.

        max_tokens: Of each answer.

        used: Bytes that all engines really use now.
    """

    def __init__(
        self,
        manager: ModelManager,
        kinds: list[Kind],
        *,
        max_tokens: int,
        used: Callable[[], int] | None = None,
    ) -> None:
        self.manager = manager
        self.kinds = kinds
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest = 0.0
        self._max_tokens = max_tokens
        self._used = used
        self._counting = threading.Lock()
        self._left = 0

    def run(
        self, threads: int, seed: int, *, operations: int, seconds: float = 0.0
    ) -> None:
        """Do so many things that are not refused, or for so long if that is more."""
        self._left = operations
        self._end = time.monotonic() + seconds
        started = [
            threading.Thread(target=self._work, args=(random.Random(seed + n),))
            for n in range(threads)
        ]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    def _work(self, chance: random.Random) -> None:
        while self._more():
            kind = chance.choice(self.kinds)
            act = chance.choices(
                (self._ask, self._stream, self._drop, self._load, self._unload),
                (10, 4, 2, 6, 1),
            )[0]
            begun = time.monotonic()
            what = self._outcome(act, kind, chance)
            took = time.monotonic() - begun
            self._look(closely=chance.random() < 0.02)
            with self._counting:
                self._left -= what in DONE
                self.done[f"{act.__name__[1:]}: {what}"] += 1
                self.longest = max(self.longest, took)
                if took > HANGS:
                    self.wrong.append(f"{act.__name__} took {took:.0f} s")

    def _more(self) -> bool:
        return self._left > 0 or time.monotonic() < self._end

    def _outcome(self, act: Any, kind: Kind, chance: random.Random) -> str:
        try:
            return str(act(kind, chance))
        except NotReadyError as error:
            with suppress(NotLoadedError):
                self.manager._table.get(kind.id).settled.wait(1.0)
            return type(error).__name__
        except (NotLoadedError, QueueFullError, AlreadyLoadedError) as error:
            return type(error).__name__
        except (InsufficientMemoryError, OperationCancelledError) as error:
            if act != self._load:
                self._complain(f"{act.__name__} of {kind.id}", error)
            return type(error).__name__
        except BaseException as error:
            self._complain(f"{act.__name__} of {kind.id}", error)
            return "wrong"

    def _complain(self, what: str, error: object) -> None:
        with self._counting:
            self.wrong.append(f"{what}: {type(error).__name__}: {error}")

    # -- operations --------------------------------------------------------------------

    def _ask(self, kind: Kind, chance: random.Random) -> str:
        prompt = chance.choice(list(kind.answers))
        text = self.manager.generate(
            kind.id, prompt, max_tokens=self._max_tokens, queue=HANGS
        )
        return self._judge(kind, prompt, text)

    def _stream(self, kind: Kind, chance: random.Random) -> str:
        prompt = chance.choice(list(kind.answers))
        stream = self.manager.stream(
            kind.id, prompt, max_tokens=self._max_tokens, queue=HANGS
        )
        text = "".join(event.text for event in stream)
        return self._judge(kind, prompt, text)

    def _judge(self, kind: Kind, prompt: str, text: str) -> str:
        if text != kind.answers[prompt]:
            self._complain(f"{kind.id} to {prompt!r}", f"answered {text!r}")
        return "answered"

    def _drop(self, kind: Kind, chance: random.Random) -> str:
        stream = self.manager.stream(
            kind.id, chance.choice(list(kind.answers)), queue=HANGS
        )
        next(stream)
        if chance.random() < 0.5:
            stream.close()
        return "dropped"

    def _load(self, kind: Kind, chance: random.Random) -> str:
        options: dict[str, Any] = {"wait": chance.random() < 0.7, "timeout": 2.0}
        kind.load(self.manager, kind.id, options)
        return "loaded"

    def _unload(self, kind: Kind, chance: random.Random) -> str:
        self.manager.unload(kind.id, inflight="drain", timeout=HANGS)
        return "unloaded"

    # -- what must be true -------------------------------------------------------------

    def _look(self, *, closely: bool) -> None:
        for pool in self.manager.budget.pools:
            if pool.limit is not None and pool.reserved > pool.limit:
                self._complain("budget", f"{pool.reserved} of {pool.limit}")
            if closely and self._used is not None and pool.limit is not None:
                used = self._used()
                if used > pool.limit:
                    self._complain("engines", f"use {used} of {pool.limit}")

    def report(self) -> None:
        """What was done, for people."""
        total = sum(self.done.values())
        print(f"{total} operations, longest {self.longest:.2f} s", file=sys.stderr)
        for what, count in sorted(self.done.items()):
            print(f"  {what:40}{count}", file=sys.stderr)
        print(f"  wrong: {len(self.wrong)}", file=sys.stderr)
