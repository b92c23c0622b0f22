"""
The loops that everybody writes over the C API: the speed that the engine itself has.

Greedy tokens of one or several sequences, one batch with a token of each per step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import llama_cpp.llama_cpp as binding

C: Any = binding  # untyped ctypes

Row = tuple[int, int, int, bool]
"""Token, position, sequence, and whether its logits are wanted."""


_silence = C.llama_log_callback(lambda level, text, data: None)


class Raw:
    """
    The loops over a native context, which it does not own.

    Args:
        context: A `llama_context` pointer.

        batch_size: Of the context.
    """

    def __init__(self, context: Any, batch_size: int) -> None:
        self.context = context
        self.memory = C.llama_get_memory(context)
        self.vocab = C.llama_model_get_vocab(C.llama_get_model(context))
        self.batch = C.llama_batch_init(batch_size, 0, 1)
        self.sampler = C.llama_sampler_chain_init(
            C.llama_sampler_chain_default_params()
        )
        C.llama_sampler_chain_add(self.sampler, C.llama_sampler_init_greedy())
        self.buffer = ctypes.create_string_buffer(256)

    @classmethod
    def load(cls, path: str, context: dict[str, Any]) -> Raw:
        """With a model and a context of its own, until the end of the process."""
        C.llama_log_set(_silence, None)
        C.llama_backend_init()
        model = C.llama_model_load_from_file(
            path.encode(), C.llama_model_default_params()
        )
        params = C.llama_context_default_params()
        for name, value in context.items():
            setattr(params, name, value)
        return cls(C.llama_init_from_model(model, params), context["n_batch"])

    def close(self) -> None:
        """Free what it made itself."""
        C.llama_sampler_free(self.sampler)
        C.llama_batch_free(self.batch)

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

    def turn(self, known: int, new: Sequence[int]) -> None:
        """The first token of an answer after so many tokens and these."""
        last = len(new) - 1
        self.decode((token, known + i, 0, i == last) for i, token in enumerate(new))
        self.draw(last)


def rows_of(prompts: Sequence[Sequence[int]]) -> Iterable[Row]:
    """A batch of whole prompts, with logits for the last token of each."""
    for number, prompt in enumerate(prompts):
        for position, token in enumerate(prompt):
            yield token, position, number, position == len(prompt) - 1
