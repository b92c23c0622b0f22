"""A real chat model answers as it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.values import SamplingParams

if TYPE_CHECKING:
    from conftest import MakeRun


def test_paris(smol: LlamaCppModel, run: MakeRun) -> None:
    """The greedy continuation about France names Paris."""
    context = run(smol)
    sampler = context.context.create_sampler(SamplingParams(), 1)
    assert sampler is not None
    tokens = smol.tokenize(b"The capital of France is")
    context.feed(tokens)
    token = context.context.sample(len(tokens) - 1, sampler)
    for _ in range(5):
        tokens.append(token)
        context.feed([token], at=len(tokens) - 1)
        token = context.context.sample(0, sampler)

    assert b"Paris" in b"".join(map(smol.piece, tokens))
