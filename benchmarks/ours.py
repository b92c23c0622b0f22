"""
llmcore's side: the same work through its public objects, and by the raw loop.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from attrs import define, field

import llmcore
from benchmarks.child import generated, in_threads, serve, timed
from benchmarks.raw import Raw
from llmcore.backends.llama_cpp.context import LlamaCppContext
from llmcore.spi import Batch

T = TypeVar("T")
TURNS = ("What is the capital of France?", "And of Italy? Answer in one sentence.")


class Jobs:
    """What `benchmarks.streams` asks for."""

    def __init__(self) -> None:
        self.llama = llmcore.get_llama("llama_cpp")
        self.model: llmcore.Model | None = None
        self.sequences: list[llmcore.Sequence] = []

    # -- the objects ---------------------------------------------------------------

    def open(self, path: str, **params: Any) -> None:
        """A context in the place of the one before."""
        if self.model is None:
            self.model = self.llama.load_model(path)
        for sequence in self.sequences[:1]:
            sequence.context.dispose()
        context = self.model.create_context(**params)
        self.sequences = [context.get_sequence() for _ in range(params["sequences"])]

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """As prompts."""
        assert self.model is not None
        bos = self.model.info.add_bos
        return [self.model.tokenize(text, add_bos=bos) for text in texts]

    def _empty(self) -> llmcore.Sequence:
        for sequence in self.sequences:
            sequence.clear()
        return self.sequences[0]

    def _raw(self, loop: Callable[[Raw], T]) -> tuple[float, T]:
        """
        Time a raw loop on this very context, in the thread that calls the engine.

        So memory, cores and OpenMP's threads are the same on both sides: another
        context in another process may be 3 % faster or slower, by luck.
        """
        sequence = self._empty()

        def work(native: Any, _: int) -> tuple[float, T]:
            raw = Raw(native._handle, native.params.batch_size)
            raw.clear()
            try:
                return timed(lambda: loop(raw))
            finally:
                raw.clear()
                raw.close()

        with sequence._job() as job:
            return sequence._engine.evaluate(job, [0], work)

    # -- streams -------------------------------------------------------------------

    def generate(
        self, prompts: list[list[int]], count: int, tasks: bool = False
    ) -> dict[str, object]:
        """A stream for each prompt, from threads or from asyncio's tasks."""
        self._empty()

        def stream(number: int) -> llmcore.Stream:
            return self.sequences[number].generate(
                prompts[number], max_tokens=count, ignore_eos=True
            )

        def read(number: int) -> llmcore.GenerationResult:
            answer = stream(number)
            for event in answer:
                _ = event.text
            return answer.result

        async def aread(number: int) -> llmcore.GenerationResult:
            answer = stream(number)
            async for event in answer:
                _ = event.text
            return answer.result

        async def all_tasks() -> tuple[float, list[llmcore.GenerationResult]]:
            loop = asyncio.get_running_loop()
            start = loop.time()
            answers = await asyncio.gather(*map(aread, range(len(prompts))))
            return loop.time() - start, answers

        if tasks:
            seconds, answers = asyncio.run(all_tasks())
        else:
            seconds, answers = timed(lambda: in_threads(read, len(prompts)))
        texts = [answer.text for answer in answers]
        return generated(seconds, texts, [len(answer.tokens) for answer in answers])

    def raw_generate(self, prompts: list[list[int]], count: int) -> dict[str, object]:
        """Greedy tokens after all prompts at once."""
        seconds, answers = self._raw(lambda raw: raw.generate(prompts, count))
        texts = [b"".join(piece for _, piece in a).decode("utf-8") for a in answers]
        return generated(seconds, texts, [len(answer) for answer in answers])

    def copied(
        self, prompt: list[int], count: int, predict: bool = False
    ) -> dict[str, object]:
        """One stream after an evaluated prompt, with or without guesses from it."""
        options: dict[str, Any] = {"max_tokens": count, "ignore_eos": True}
        if predict:
            prediction = importlib.import_module("llmcore.prediction")
            options["predictor"] = prediction.PromptLookup()
        sequence = self._empty()
        sequence.evaluate(prompt)
        seconds, answer = timed(lambda: sequence.generate(prompt, **options).result)
        return generated(seconds, [answer.text], [len(answer.tokens)])

    # -- prompts -------------------------------------------------------------------

    def evaluate(self, tokens: list[int]) -> float:
        """Seconds for a prompt."""
        sequence = self._empty()
        return timed(lambda: sequence.evaluate(tokens))[0]

    def raw_evaluate(self, tokens: list[int]) -> float:
        """Seconds for a prompt of at most one batch."""
        return self._raw(lambda raw: raw.prompts([tokens]))[0]

    def turn(self) -> dict[str, object]:
        """From a second question to the first text of its answer, and what it read."""
        sequence = self._empty()
        with llmcore.ChatSession(sequence, system_prompt="Be brief.") as chat:
            chat.prompt(TURNS[0], max_tokens=16)

            def first() -> llmcore.Stream:
                stream = chat.stream(TURNS[1], max_tokens=8)
                for event in stream:
                    if event.text:
                        break
                return stream

            seconds, stream = timed(first)
            result = stream.result
            prompt = sequence.tokens[: result.prompt_tokens]
            reused = result.cache.reused
        return {"seconds": seconds, "known": prompt[:reused], "new": prompt[reused:]}

    def raw_turn(self, known: list[int], new: list[int]) -> float:
        """Seconds from the new tokens of a conversation to the first of the answer."""

        def turn(raw: Raw) -> float:
            raw.prompts([known])
            return timed(lambda: raw.turn(len(known), new))[0]

        return self._raw(turn)[1]

    # -- what the raw loop has no part in ------------------------------------------

    def cancel(self, tokens: list[int]) -> dict[str, float]:
        """
        Close a stream while the engine works on its prompt, from another thread.

        Returns:
            Milliseconds until the sequence is free, and what the engine did after the
            cancel: calls that began, and tokens that it evaluated.
        """
        sequence = self._empty()
        with counted_calls() as calls:
            stream = sequence.generate(tokens, max_tokens=8)
            reader = threading.Thread(target=_read_until_closed, args=(stream,))
            reader.start()
            calls.second_began.wait()
            began, ended = calls.began, calls.evaluated
            seconds, _ = timed(stream.close)
            after = calls.began - began
            sequence.evaluate([1])  # the position is settled at the next use
            reader.join()
        evaluated = sequence.position - 1 - ended
        return {"ms": seconds * 1000, "calls": after, "evaluated": evaluated}

    def fork(self, tokens: list[int]) -> dict[str, float]:
        """
        Fork a sequence that holds these tokens; milliseconds.

        Returns:
            Of the fork, and of the first token evaluated on the copy, because an
            engine may put the copying off until then; and of the token after it.
        """
        sequence, other = self._empty(), self.sequences.pop()
        other.dispose()  # a fork takes its place
        sequence.evaluate(tokens)
        fork, twin = timed(sequence.fork)
        self.sequences.append(twin)
        first, second = (timed(lambda: twin.evaluate([1]))[0] for _ in range(2))
        return {"fork": fork * 1000, "first": first * 1000, "second": second * 1000}


@define(eq=False)
class Calls:
    """How often the engine was called, and how many tokens it evaluated."""

    began: int = 0
    evaluated: int = 0
    second_began: threading.Event = field(factory=threading.Event)


@contextmanager
def counted_calls() -> Iterator[Calls]:
    """Count what the engine is asked for; for one stream at a time."""
    calls, decode = Calls(), LlamaCppContext.decode

    def counting(self: LlamaCppContext, batch: Batch) -> None:
        calls.began += 1
        if calls.began == 2:
            calls.second_began.set()
        decode(self, batch)
        calls.evaluated += len(batch.tokens)

    LlamaCppContext.decode = counting  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        LlamaCppContext.decode = decode  # type: ignore[method-assign]


def _read_until_closed(stream: llmcore.Stream) -> None:
    with suppress(llmcore.errors.OperationCancelledError):
        for _ in stream:
            pass


if __name__ == "__main__":
    jobs = Jobs()
    serve(
        open=jobs.open,
        tokenize=jobs.tokenize,
        generate=jobs.generate,
        copied=jobs.copied,
        raw_generate=jobs.raw_generate,
        evaluate=jobs.evaluate,
        raw_evaluate=jobs.raw_evaluate,
        turn=jobs.turn,
        raw_turn=jobs.raw_turn,
        cancel=jobs.cancel,
        fork=jobs.fork,
    )
