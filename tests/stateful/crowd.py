"""
Several threads or tasks that run random programs on the same contexts.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread

import llmcore
from llmcore.errors import (
    BusyError,
    ContextOverflowError,
    DisposedError,
    DisposeTimeoutError,
    NoResultError,
    NoSequenceLeftError,
    OperationCancelledError,
    OperationTimeoutError,
)

from .kit import PATIENCE, Bench, predictor_named, shown_nothing, watched

Step = tuple[str, int, int]
STEPS = (
    *("answer", "answer", "answer", "task", "evaluate", "truncate", "fork"),
    *("cancel", "stop", "drop", "close", "hurry", "chat", "take", "take"),
    *("give", "clear", "renew"),
)
FINE = (
    BusyError,  # also SequenceBusyError and QueueFullError
    ContextOverflowError,
    DisposedError,
    DisposeTimeoutError,
    NoResultError,
    NoSequenceLeftError,
    OperationCancelledError,
    OperationTimeoutError,
)
"""What programs may get that know nothing of each other; anything else is wrong."""


class Crowd:
    """
    What the programs share: a model, two contexts, and the sequences that were taken.

    Args:
        bench: The engine.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.llama, self.backend = bench.llama()
        self.model = self.llama.load_model(bench.path)
        self.contexts = [self.make_context(), self.make_context()]
        self.sequences = [context.get_sequence() for context in self.contexts]
        self.answers = 0
        self.errors = Counter[str]()

    def make_context(self) -> llmcore.Context:
        return self.model.create_context(**self.bench.params)

    def run(self, program: Sequence[Step]) -> None:
        """One thread's program."""
        for step in program:
            try:
                self.do(*step)
            except FINE as error:
                self.errors[type(error).__name__] += 1

    async def run_task(self, program: Sequence[Step]) -> None:
        """One task's program."""
        for action, at, other in program:
            try:
                if action in ("answer", "task", "cancel", "drop"):
                    await self.answer_in_task(action, at, other)
                elif action == "chat":
                    await self.chat_in_task(at)
                elif action == "take":
                    context = self.contexts[at % len(self.contexts)]
                    taken = await context.aget_sequence(wait=True, timeout=0.05)
                    self.sequences.append(taken)
                elif action in ("evaluate", "truncate", "fork", "clear"):
                    self.do(action, at, other)
                else:  # it may wait for what another task has
                    await anyio.to_thread.run_sync(self.do, action, at, other)
            except FINE as error:
                self.errors[type(error).__name__] += 1

    def pick(self, at: int) -> llmcore.Sequence:
        """A sequence that mostly lives; who else has it, nobody knows."""
        living = [s for s in self.sequences if not s.disposed]
        return (living or self.sequences)[at % len(living or self.sequences)]

    # -- the steps -------------------------------------------------------------------

    def do(self, action: str, at: int, other: int) -> None:
        sequence = self.pick(at)
        if action in ("evaluate", "truncate", "fork", "give"):
            self.by_hand(action, sequence, other)
        elif action == "take":
            context = self.contexts[at % len(self.contexts)]
            taken = context.get_sequence(wait=bool(other % 2), timeout=0.02)
            self.sequences.append(taken)
        elif action == "clear":
            self.contexts[at % len(self.contexts)].clear()
        elif action == "renew":
            self.renew(at, other)
        elif action == "chat":
            chat = llmcore.ChatSession(sequence)
            stream = chat.stream("ab", **self.greedy(4), wait=True)
            self.check(stream.result, self.greedy(4))
        else:
            self.answer(action, sequence, other)

    def by_hand(self, action: str, sequence: llmcore.Sequence, other: int) -> None:
        if action == "evaluate":
            sequence.evaluate(self.prompt(other)[:5])
        elif action == "truncate":
            with suppress(ValueError):  # somebody else made it shorter
                sequence.truncate(other % 9)
        elif action == "fork":
            self.sequences.append(sequence.fork())
        else:
            sequence.dispose()

    def renew(self, at: int, other: int) -> None:
        """Dispose a context, or only try to, and make another."""
        n = at % len(self.contexts)
        old = self.contexts[n]
        if other % 4 == 0:
            old.dispose(inflight="wait", timeout=0.01)
        elif other % 4 == 1:
            old.dispose(timeout=0)
        elif other % 4 == 2:
            old.dispose()
        else:
            return
        self.contexts[n] = fresh = self.make_context()
        self.sequences.append(fresh.get_sequence())

    def prompt(self, number: int) -> list[int]:
        """A prompt; those of near numbers have much in common."""
        random_ = random.Random(number // 4)
        tokens = random_.choices(self.bench.alphabet, k=1 + number % 23)
        return [*tokens, self.bench.alphabet[number % 3]]

    def greedy(self, count: int | None) -> dict[str, Any]:
        return {"temperature": 0.0, "max_tokens": count}

    def answer(self, action: str, sequence: llmcore.Sequence, other: int) -> None:
        prompt, given = self.prompt(other), self.greedy(1 + other % 12)
        name = ("liar", "lookup", None)[other % 3]
        guess = predictor_named(name, self.bench.alphabet)
        time = 0.01 if action == "hurry" else 600.0
        stream = sequence.generate(
            prompt, **given, predictor=guess, wait=other % 2 == 0, timeout=time
        )
        for _ in range(other % 4):
            next(stream, None)
        if action == "cancel":
            stream.cancel()
        elif action == "stop":
            stream.stop()
        elif action == "close":
            stream.close()
        if action != "drop":
            self.check(stream.result, given)

    def check(self, result: Any, given: dict[str, Any]) -> None:
        if result.finish_reason == "stopped":
            return
        self.answers += 1
        self.bench.check(result.receipt.prompt, given, result)

    async def answer_in_task(self, action: str, at: int, other: int) -> None:
        sequence = self.pick(at)
        prompt, given = self.prompt(other), self.greedy(1 + other % 12)
        stream = sequence.generate(prompt, **given, wait=other % 2 == 0)
        if action == "cancel":  # of the task, in the middle of the answer
            with anyio.move_on_after(0.002):
                async for _ in stream:
                    await anyio.sleep(0)
            return
        async with stream:
            async for _ in stream:
                if action == "drop":
                    return
        self.check(stream.result, given)

    async def chat_in_task(self, at: int) -> None:
        chat = llmcore.ChatSession(self.pick(at))
        await chat.aprompt("ab", **self.greedy(4))

    # -- the end ---------------------------------------------------------------------

    def close(self) -> None:
        """What must hold when all programs are over."""
        for context in self.contexts:
            self.check_context(context)
        self.llama.dispose()
        for call in (*(s.evaluate for s in self.sequences),):
            try:
                call([])
            except DisposedError:
                continue
            raise AssertionError("a sequence outlives its engine")
        if self.backend is not None:
            ledger = self.backend.ledger
            assert not ledger.violations, f"violations: {ledger.violations}"
            assert ledger.live == {}

    def check_context(self, context: llmcore.Context) -> None:
        """Slots add up, and each sequence that lives still answers right."""
        if context.disposed:
            return
        living = [s for s in self.sequences if s.context is context and not s.disposed]
        total = self.bench.params["sequences"]
        assert context.sequences_left == total - len(living)
        for sequence in living:
            prompt, given = self.prompt(7), self.greedy(3)
            sequence.truncate(sequence.position // 2)
            self.check(sequence.generate(prompt, **given, wait=True).result, given)


def programs(seed: int, *, count: int, steps: int) -> list[list[Step]]:
    """Random programs, the same for the same seed."""
    chance = random.Random(seed)
    return [
        [
            (chance.choice(STEPS), chance.randrange(1000), chance.randrange(1000))
            for _ in range(steps)
        ]
        for _ in range(count)
    ]


def run_threads(bench: Bench, work: Sequence[Sequence[Step]]) -> None:
    """Run each program in a thread of its own, then look at what is left."""
    crowd = Crowd(bench)
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(program: Sequence[Step]) -> None:
        try:
            start.wait(PATIENCE)
            crowd.run(program)
        except BaseException as error:
            errors.append(error)

    with watched("a program"), shown_nothing():
        threads = [
            threading.Thread(target=run, args=(program,), daemon=True)
            for program in work
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a program hangs"
        if errors:
            raise errors[0]
        crowd.close()


def run_tasks(bench: Bench, work: Sequence[Sequence[Step]], loop: str) -> None:
    """Run each program in a task of its own, then look at what is left."""
    crowd = Crowd(bench)

    async def run() -> None:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for program in work:
                    group.start_soon(crowd.run_task, program)

    with watched("a task"), shown_nothing():
        anyio.run(run, backend=loop)
        crowd.close()
