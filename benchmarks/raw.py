"""
The loops that everybody writes over the C API: the speed that the engine itself has.

Greedy tokens of one or several sequences, one batch with a token of each per step. The
parameters are those that llmcore hands to the same library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import llama_cpp.llama_cpp as binding

from benchmarks.child import generated, serve, timed

C: Any = binding  # untyped ctypes

Row = tuple[int, int, int, bool]
"""Token, position, sequence, and whether its logits are wanted."""


_silence = C.llama_log_callback(lambda level, text, data: None)


def _fill(structure: Any, values: dict[str, Any]) -> Any:
    for name, value in values.items():
        setattr(structure, name, value)
    return structure


class Raw:
    """
    A model and a context; lives as long as the process.

    Args:
        path: Of the model file.

        model: Fields of `llama_model_params`.

        context: Fields of `llama_context_params`.
    """

    def __init__(
        self, path: str, model: dict[str, Any], context: dict[str, Any]
    ) -> None:
        C.llama_log_set(_silence, None)
        C.llama_backend_init()
        self.model = C.llama_model_load_from_file(
            path.encode(), _fill(C.llama_model_default_params(), model)
        )
        self.vocab = C.llama_model_get_vocab(self.model)
        self.context: Any = None
        self.batch: Any = None
        self.resize(context)
        chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        C.llama_sampler_chain_add(chain, C.llama_sampler_init_greedy())
        self.sampler = chain
        self.buffer = ctypes.create_string_buffer(256)

    def resize(self, context: dict[str, Any]) -> None:
        """Another context in the place of the one before."""
        if self.context is not None:
            C.llama_batch_free(self.batch)
            C.llama_free(self.context)
        self.batch = C.llama_batch_init(context["n_batch"], 0, 1)
        self.context = C.llama_init_from_model(
            self.model, _fill(C.llama_context_default_params(), context)
        )
        self.memory = C.llama_get_memory(self.context)

    def clear(self) -> None:
        """Empty all sequences."""
        C.llama_memory_clear(self.memory, False)

    def decode(self, rows: Iterable[Row]) -> None:
        """Evaluate one batch."""
        batch, count = self.batch, 0
        for token, position, sequence, output in rows:
            batch.token[count] = token
            batch.pos[count] = position
            batch.n_seq_id[count] = 1
            batch.seq_id[count][0] = sequence
            batch.logits[count] = output
            count += 1
        batch.n_tokens = count
        code = C.llama_decode(self.context, batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")

    def draw(self, row: int) -> tuple[int, bytes]:
        """The most likely token of a row of the last batch, and its bytes."""
        token = C.llama_sampler_sample(self.sampler, self.context, row)
        size = C.llama_token_to_piece(self.vocab, token, self.buffer, 256, 0, False)
        return token, self.buffer.raw[:size]

    def prompts(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, bytes]]:
        """Evaluate a prompt for each sequence in one batch; the first token of each."""
        self.decode(rows_of(prompts))
        last, drawn = -1, []
        for prompt in prompts:
            last += len(prompt)
            drawn.append(self.draw(last))
        return drawn

    def generate(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[list[tuple[int, bytes]]]:
        """``count`` tokens for each prompt, its bytes beside each token."""
        answers = [[first] for first in self.prompts(prompts)]
        starts = [len(prompt) for prompt in prompts]
        for step in range(count - 1):
            self.decode(
                (answer[-1][0], starts[number] + step, number, True)
                for number, answer in enumerate(answers)
            )
            for number, answer in enumerate(answers):
                answer.append(self.draw(number))
        return answers


def rows_of(prompts: Sequence[Sequence[int]]) -> Iterable[Row]:
    """A batch of whole prompts, with logits for the last token of each."""
    for number, prompt in enumerate(prompts):
        for position, token in enumerate(prompt):
            yield token, position, number, position == len(prompt) - 1


class Jobs:
    """What `benchmarks.streams` asks for."""

    raw: Raw | None = None

    def open(self, path: str, model: dict[str, Any], context: dict[str, Any]) -> None:
        """A context with these parameters."""
        if self.raw is None:
            self.raw = Raw(path, model, context)
        else:
            self.raw.resize(context)

    def generate(self, prompts: list[list[int]], count: int) -> dict[str, object]:
        """Greedy tokens after all prompts at once."""
        raw = self._raw()
        seconds, answers = timed(lambda: raw.generate(prompts, count))
        texts = [b"".join(piece for _, piece in a).decode("utf-8") for a in answers]
        return generated(seconds, texts, [len(answer) for answer in answers])

    def evaluate(self, tokens: list[int]) -> float:
        """Seconds for a prompt of at most one batch."""
        raw = self._raw()
        return timed(lambda: raw.prompts([tokens]))[0]

    def turn(self, known: list[int], new: list[int]) -> float:
        """Seconds from the new tokens of a conversation to the first of the answer."""
        raw = self._raw()
        raw.prompts([known])
        start, last = len(known), len(new) - 1
        rows = [(token, start + i, 0, i == last) for i, token in enumerate(new)]

        def first() -> None:
            raw.decode(rows)
            raw.draw(last)

        return timed(first)[0]

    def _raw(self) -> Raw:
        assert self.raw is not None
        self.raw.clear()
        return self.raw


if __name__ == "__main__":
    jobs = Jobs()
    serve(
        open=jobs.open, generate=jobs.generate, evaluate=jobs.evaluate, turn=jobs.turn
    )
