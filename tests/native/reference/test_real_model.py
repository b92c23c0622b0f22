"""SmolLM2-135M-Instruct here and in llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from llmcore.spi import BackendModel

if TYPE_CHECKING:
    from conftest import Load, Logits, MakeRun, Run

PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):\n",
    "Water boils at a temperature of",
    "The opposite of hot is",
    "In 1969, humans first",
    "A recipe for bread needs flour,",
    "The sun rises in the",
    "My favourite colour is",
    "Dogs are loyal, while cats are",
    "To be, or not to be,",
    "The largest planet in the solar system is",
    "2, 4, 6, 8,",
    "She opened the door and",
    "The best way to learn a language is",
    "Dear Sir or Madam,",
    "The first president of the United States was",
    "A triangle has three",
    "import numpy as np\n",
    "The quick brown fox",
]
ANSWER = 16

NEAR_TIE = 0.6
"""
Difference of two logits below which rounding may decide which one is greater.

To multiply weights of 4 bits llama.cpp rounds what it multiplies them with to 8 bits
(Q8_1). In the root mean square that moves a logit by 0.14 beside the others, so a
difference of two by 0.2, of which this is three times. With 32-bit weights it rounds
nothing.
"""

pytestmark = pytest.mark.slow


class Difference(NamedTuple):
    """Where two greedy answers part, and what separates the two tokens there."""

    prompt: str
    token: int
    margin: float
    """Of the reference: its own token's logit less that of the other's."""


def greedy(run: Run, prompt: list[int]) -> list[int]:
    """An answer, token by token."""
    logits = run.feed(prompt)[-1]
    answer = [int(logits.argmax())]
    while len(answer) < ANSWER:
        logits = run.feed(answer[-1:], at=len(prompt) + len(answer) - 1)[-1]
        answer.append(int(logits.argmax()))
    return answer


def first_difference(
    prompt: str, logits: Logits, answer: list[int]
) -> Difference | None:
    """
    Where the greedy answer of the reference parts from another one.

    Up to there both see the same tokens, so its logits after each token of the other
    answer are those that it chooses by.
    """
    for place, (row, token) in enumerate(zip(logits, answer, strict=True)):
        if row.argmax() != token:
            return Difference(prompt, place, float(row.max() - row[token]))
    return None


def compare(ours: BackendModel, theirs: BackendModel, run: MakeRun) -> list[Difference]:
    """The differences of all prompts."""
    found = []
    for prompt in PROMPTS:
        tokens = ours.tokenize(prompt.encode())
        answer = greedy(run(theirs, context_size=64), tokens)
        logits = run(ours, context_size=64).feed([*tokens, *answer[:-1]])
        found.append(first_difference(prompt, logits[len(tokens) - 1 :], answer))
    return [difference for difference in found if difference is not None]


def test_floats(
    smol: BackendModel, smol_floats: Path, llama_cpp: Load, run: MakeRun
) -> None:
    """With its weights as 32-bit floats, llama.cpp gives the same greedy answers."""
    assert compare(smol, llama_cpp(smol_floats), run) == []


def test_float_logits(
    smol: BackendModel, smol_floats: Path, llama_cpp: Load, run: MakeRun
) -> None:
    """All logits are the same then, up to the order of sums in 30 layers."""
    tokens = smol.tokenize("\n".join(PROMPTS).encode())[:100]
    ours = run(smol).feed(tokens)
    theirs = run(llama_cpp(smol_floats)).feed(tokens)

    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_quantised(
    smol: BackendModel,
    smollm2: Path,
    llama_cpp: Load,
    run: MakeRun,
) -> None:
    """With the weights as they are, answers part at near ties only."""
    differences = compare(smol, llama_cpp(smollm2), run)
    for difference in differences:
        print(f"parted after {difference}")

    assert [d for d in differences if d.margin > NEAR_TIE] == []
