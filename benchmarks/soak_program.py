"""
The programs of a soak: random operations, from threads and from tasks.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

import llmcore
from benchmarks.soak_world import SIZES, Engine, Oracle, Place, Tally, Wrong, claim
from llmcore.errors import (
    BusyError,
    ContextOverflowError,
    DisposedError,
    DisposeTimeoutError,
    LlmcoreError,
    NoResultError,
    NoSequenceLeftError,
    OperationCancelledError,
    OperationTimeoutError,
)
from llmcore.prediction import Predictor, PromptLookup
from llmcore.values import CacheKind

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

WEIGHTS = {
    **{"answer": 12, "chat": 2, "evaluate": 3, "truncate": 3, "transact": 2},
    **{"fork": 2, "save": 1, "load": 1, "take": 4, "give": 3, "forget": 1},
    **{"clear": 1, "alone": 1, "renew": 1},
}
"""How often each operation is chosen."""

ENDS = ("read", "read", "read", "cancel", "stop", "close", "drop", "hurry")
"""How an answer ends; "read" reads all of it."""

WORDS = ("the", " cat", " sat", " on", " a", " mat", " and", " sang", "!", " Then")
STAYING = 2
"""So many of the places are not disposed before the end."""


class Undo(Exception):
    """Makes a transaction fail."""


class Liar(Predictor):
    """Guesses the same few tokens whatever was said."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens

    def start(self, tokens: Sequence[int]) -> None:
        """Nothing is learnt."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Nothing is learnt."""

    def predict(self, limit: int) -> Sequence[int]:
        """Always the same."""
        return self._tokens[:limit]


def greedy(count: int) -> dict[str, Any]:
    """Options of an answer that the oracle knows."""
    return {"temperature": 0.0, "max_tokens": count}


class Soak:
    """
    Places where programs run; all but a few are disposed and made anew all the time.

    Args:
        engine: The engine to soak.

        folder: For saved sequences.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self.oracle = Oracle(engine)
        self._renewing = threading.Lock()
        self.tally = Tally()
        self.places = [self._home(number) for number in range(4)]

    def _home(self, number: int) -> Place:
        """A place of an instance of its own."""
        kind = CacheKind.RECURRENT if number == 2 else CacheKind.FULL
        return self._engine.open(deterministic=bool(number % 2), kind=kind)

    # -- programs ----------------------------------------------------------------------

    def run(self, seed: int, end: float) -> None:
        """A thread's program: operations until a moment of the monotonic clock."""
        chance = random.Random(seed)
        while time.monotonic() < end:
            name = self._choose(chance)
            with self._judged(name):
                getattr(self, name)(chance)

    async def run_tasks(self, seed: int, end: float) -> None:
        """The same from tasks of one event loop."""
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(
                    self._run_task, random.Random(100 * seed + number), end
                )

    async def _run_task(self, chance: random.Random, end: float) -> None:
        while time.monotonic() < end:
            name = self._choose(chance)
            with self._judged(f"{name} in a task"):
                if name in ("answer", "chat", "take"):
                    await getattr(self, f"a{name}")(chance)
                else:
                    await to_thread.run_sync(getattr(self, name), chance)

    def _choose(self, chance: random.Random) -> str:
        return chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]

    @contextmanager
    def _judged(self, name: str) -> Iterator[None]:
        self.tally.add("operations")
        try:
            with self.tally.timed(name):
                yield
        except FINE as error:
            self.tally.refused(error)
        except Exception:
            self.tally.broke(f"{name}: {traceback.format_exc()}")

    def settle(self) -> None:
        """When no program runs all must add up."""
        for place in self.places:
            with self._judged("settle"):
                place.check()

    def close(self) -> None:
        """Dispose everything, and see whether all of it is freed."""
        for place in self.places:
            with self._judged("close"):
                place.llama.dispose()
                place.check_disposed()
        self.oracle.close()

    # -- what they need ----------------------------------------------------------------

    def _pick(self, chance: random.Random) -> tuple[Place, llmcore.Sequence]:
        """A sequence that mostly lives; who else uses it, nobody knows."""
        place = chance.choice(self.places)
        living = [one for one in place.sequences if not one.disposed]
        if not living:
            living = [place.context.get_sequence()]
            place.sequences += living
        return place, chance.choice(living)

    def _prompt(self, place: Place, chance: random.Random) -> list[int]:
        """One of 60 prompts; those of near numbers begin alike."""
        number = chance.randrange(60)
        words = random.Random(number // 4).choices(WORDS, k=1 + number % 20)
        return place.model.tokenize("".join([*words, WORDS[number % 4]]))

    def _options(self, place: Place, chance: random.Random) -> dict[str, Any]:
        guess = [None, Liar(self._prompt(place, chance)), PromptLookup(most=3)]
        return {"predictor": chance.choice(guess), "wait": chance.random() < 0.5}

    def _check(self, place: Place, stream: llmcore.Stream, count: int) -> None:
        result = stream.result
        if result.finish_reason == "stopped" and not result.tokens:
            return  # before it began
        try:
            self.oracle.check(result, count, exact=place.exact)
        except Wrong as error:
            options = dict(result.receipt.options)
            error.add_note(f"on place {self.places.index(place)}, {options}")
            raise
        self.tally.add("answers")

    # -- answers -----------------------------------------------------------------------

    def answer(self, chance: random.Random) -> None:
        """An answer of which all is read, or not."""
        place, sequence = self._pick(chance)
        way, count = chance.choice(ENDS), chance.choice((1, 4, 12))
        stream = sequence.generate(
            self._prompt(place, chance),
            timeout=0.005 if way == "hurry" else None,
            **greedy(count),
            **self._options(place, chance),
        )
        for _ in range(chance.randrange(4)):
            next(stream, None)
        if way in ("cancel", "stop", "close"):
            getattr(stream, way)()
        if way != "drop":
            self._check(place, stream, count)

    async def aanswer(self, chance: random.Random) -> None:
        """The same; "cancel" is that of the task."""
        place, sequence = self._pick(chance)
        way, count = chance.choice(ENDS), chance.choice((1, 4, 12))
        options = self._options(place, chance)
        stream = sequence.generate(
            self._prompt(place, chance), **greedy(count), **options
        )
        with anyio.move_on_after(0.004 if way == "cancel" else None):
            if way == "close":
                async with stream:
                    await anext(stream)
                return
            async for _ in stream:
                if way == "drop":
                    return
            self._check(place, stream, count)

    def chat(self, chance: random.Random) -> None:
        """Turns of a conversation."""
        place, sequence = self._pick(chance)
        session = llmcore.ChatSession(sequence, system_prompt="b")
        for turn in range(1, 3):
            stream = session.stream("ab", wait=True, **greedy(4))
            self._check(place, stream, 4)
            claim(len(session.history) == 1 + 2 * turn, "a turn is not in the history")

    async def achat(self, chance: random.Random) -> None:
        """The same; sometimes nobody waits for the answer any more."""
        sequence = self._pick(chance)[1]
        session = llmcore.ChatSession(sequence, system_prompt="b")
        with anyio.move_on_after(chance.choice((0.004, None))):
            await session.aprompt("ab", wait=True, **greedy(4))
        claim(len(session.history) in (1, 3), "half a turn is in the history")

    # -- by hand -----------------------------------------------------------------------

    def evaluate(self, chance: random.Random) -> None:
        """Append a few tokens."""
        place, sequence = self._pick(chance)
        sequence.evaluate(self._prompt(place, chance)[:5])

    def truncate(self, chance: random.Random) -> None:
        """Drop the end."""
        sequence = self._pick(chance)[1]
        try:
            sequence.truncate(chance.randrange(sequence.position + 1))
        except ValueError as error:
            if isinstance(error, LlmcoreError):
                raise  # else somebody made it shorter just before

    def transact(self, chance: random.Random) -> None:
        """A transaction that fails."""
        place, sequence = self._pick(chance)
        with suppress(Undo), sequence.transaction():
            prompt = self._prompt(place, chance)
            sequence.generate(prompt, **greedy(2)).result  # noqa: B018
            raise Undo

    def fork(self, chance: random.Random) -> None:
        """Copy one."""
        place, sequence = self._pick(chance)
        place.sequences.append(sequence.fork())

    def _file(self, place: Place, chance: random.Random) -> Path:
        kind = "none" if place.null is None else place.null.script.cache_kind
        return self._folder / f"{kind}-{chance.randrange(3)}.state"

    def save(self, chance: random.Random) -> None:
        """Write one to a file, over that of somebody else."""
        place, sequence = self._pick(chance)
        sequence.save(self._file(place, chance))

    def load(self, chance: random.Random) -> None:
        """Read one back."""
        place, sequence = self._pick(chance)
        if (path := self._file(place, chance)).exists():
            sequence.load(path)

    def alone(self, chance: random.Random) -> None:
        """In a context that nobody else knows it is clear what each step does."""
        place = chance.choice(self.places)
        prompt = self._prompt(place, chance)
        path = self._folder / f"own-{threading.get_ident()}.state"
        own = place.again(place.model)
        with own.context as context:
            sequence = context.get_sequence()
            sequence.evaluate(prompt)
            with suppress(Undo), sequence.transaction():
                sequence.truncate(1)
                sequence.evaluate(prompt[:3])
                raise Undo
            with sequence.fork() as twin:
                sequence.save(path)
                twin.clear()
                twin.load(path)
                claim(sequence.tokens == prompt == twin.tokens, "tokens were changed")
                self._check(place, twin.generate(prompt, **greedy(4)), 4)
            left = context.sequences_left
            claim(left == SIZES["sequences"] - 1, f"{left} sequences are free")
        self.tally.add("disposals")

    # -- taking and disposing ----------------------------------------------------------

    def take(self, chance: random.Random) -> None:
        """Take one; perhaps wait for it."""
        place = chance.choice(self.places)
        wait = chance.random() < 0.5
        place.sequences.append(place.context.get_sequence(wait=wait, timeout=0.02))

    async def atake(self, chance: random.Random) -> None:
        """The same."""
        place = chance.choice(self.places)
        taken = await place.context.aget_sequence(wait=True, timeout=0.02)
        place.sequences.append(taken)

    def give(self, chance: random.Random) -> None:
        """Dispose one that somebody may use."""
        self._pick(chance)[1].dispose()
        self.tally.add("disposals")

    def forget(self, chance: random.Random) -> None:
        """Let the collector find one."""
        place, sequence = self._pick(chance)
        with suppress(ValueError):  # somebody else forgot it
            place.sequences.remove(sequence)

    def clear(self, chance: random.Random) -> None:
        """Empty a whole context."""
        chance.choice(self.places).context.clear()

    def renew(self, chance: random.Random) -> None:
        """Dispose a context, its model or its instance, in the middle of everything."""
        number = chance.randrange(STAYING, len(self.places))
        level = chance.choice(("context", "context", "model", "llama"))
        with self._renewing:
            old = self.places[number]
            if level == "llama":
                self.places[number] = self._home(number)
            else:
                new = level == "model"
                model = old.llama.load_model(self._engine.path) if new else old.model
                self.places[number] = old.again(model)
        self._end(getattr(old, level), chance)
        if level == "llama":
            old.llama.dispose()  # waits for what was not waited for above
            old.check_disposed()

    def _end(self, resource: Any, chance: random.Random) -> None:
        self.tally.add("disposals")
        inflight, timeout = chance.choice(
            (("cancel", None), ("cancel", 0), ("wait", 0.01))
        )
        with suppress(DisposeTimeoutError):
            resource.dispose(inflight=inflight, timeout=timeout)
        claim(resource.disposed, "a disposed object says that it is not")
