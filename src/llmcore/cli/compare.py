"""``llmcore compare``: whether two engines compute the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcore.cli.options import ModelPath, open_model

if TYPE_CHECKING:
    from llmcore.comparison import Choice, Comparison

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "Water boils at a temperature of",
    "Dear Sir or Madam,\n\nI am writing to",
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An engine.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    model: ModelPath,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A text to continue; can be given several times."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 32,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Most logits between two tokens of a near tie."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per prompt.")
    ] = False,
) -> None:
    """
    Continue the same prompts on two engines, and judge the first difference.

    Each engine runs in a process of its own, where it does not meet the other.
    """
    from llmcore.comparison import TOLERANCE, Verdict
    from llmcore.comparison import compare as compared

    limit = TOLERANCE if tolerance is None else tolerance
    with (
        open_model(model, backend=a, gpu_layers=0, isolation="process") as left,
        open_model(model, backend=b, gpu_layers=0, isolation="process") as right,
    ):
        found = []
        for one in compared(
            *(left, right, prompt or PROMPTS), max_tokens=max_tokens, tolerance=limit
        ):
            found.append(one)
            print(json.dumps(_plain(one)) if as_json else _line(one, a, b))
    if any(one.verdict is Verdict.DEFECT for one in found):
        raise typer.Exit(1)


def _line(one: Comparison, a: str, b: str) -> str:
    """A comparison for people."""
    text = f"{one.verdict}: {one.prompt!r}"
    if not one.same_tokens:
        text += ", and the two cut it into different tokens"
    if one.first is None:
        return f"{text}, {len(one.answers[0])} equal tokens"
    first = one.first
    return (
        f"{text}, {first.index} equal tokens, "
        f"then {_told(a, first.a)}, {_told(b, first.b)}"
    )


def _told(name: str, choice: Choice) -> str:
    text = f"{name} says {choice.piece.decode('utf-8', 'replace')!r}"
    if choice.margin is not None:
        text += f" (by {choice.margin:.3f} logits)"
    return text


def _plain(one: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    from attrs import asdict

    def text(instance: object, attribute: object, value: object) -> object:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    return asdict(one, value_serializer=text)
