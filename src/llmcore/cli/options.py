"""
The options that several commands share, and what they do with them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmcore.gguf_header import GGUFHeader
    from llmcore.model import Model

ModelPath = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A file, such as model.gguf, or hf:owner/repository/model.gguf.",
    ),
]
Backend = Annotated[
    str, typer.Option(help="The engine: a name from 'llmcore backends', or auto.")
]
Gpu = Annotated[
    str,
    typer.Option(help="The way to a GPU: cuda, metal, vulkan, rocm, auto, or none."),
]
Isolation = Annotated[
    str, typer.Option(help="process gives the engine a process of its own; or none.")
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="End each answer after so many tokens.")
]
Temperature = Annotated[
    float, typer.Option(min=0.0, help="0 always takes the most likely token.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Repeat the same random choices.")
]
ContextSize = Annotated[
    int | None,
    typer.Option(min=8, help="Tokens to remember; as the model likes if not given."),
]
System = Annotated[
    str | None, typer.Option(help="What the model is told before the conversation.")
]
GpuLayers = Annotated[
    int | None,
    typer.Option(min=0, help="Layers to place on a GPU; all if there is one."),
]


def header_of(model: str) -> GGUFHeader:
    """
    The header of a model; of one on a hub without fetching it.

    Raises:
        ModelLoadError: It is no sound GGUF file, or cannot be had.
    """
    from llmcore.errors import ModelLoadError
    from llmcore.model_file import read_gguf_header
    from llmcore.sources import Source, header

    source = Source.parse(model)
    if source.scheme == "path":
        return read_gguf_header(source.name)
    found = header(source).header
    if found is None:
        raise ModelLoadError(source, "not a GGUF file: only these have such a header")
    return found


@contextmanager
def open_model(
    source: str | Path,
    *,
    backend: str,
    gpu: str = "auto",
    isolation: str = "none",
    gpu_layers: int | None = None,
) -> Iterator[Model]:
    """A loaded model for a block, with a progress bar on a terminal."""
    from llmcore.opening import get_llama

    options: dict[str, Any] = {  # which are checked there
        "gpu": False if gpu == "none" else gpu,
        "isolation": None if isolation == "none" else isolation,
    }
    llama = get_llama(backend, **options)
    with llama, _progress_bar(Path(source).name) as progress:
        model = llama.load_model(
            source,
            progress=progress.update,
            gpu_layers="auto" if gpu_layers is None else gpu_layers,
        )
        progress.close()
        yield model


class _Progress:
    """Shows the share of a load; does nothing when no one looks."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True)
        self._bar.disable = not console.is_terminal
        self._task = self._bar.add_task(f"opening {name}", total=1.0)
        self._bar.start()

    def update(self, share: float) -> None:
        self._bar.update(self._task, completed=share)

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def _progress_bar(name: str) -> Iterator[_Progress]:
    progress = _Progress(name)
    try:
        yield progress
    finally:
        progress.close()


def write(text: str) -> None:
    """Show a piece of an answer at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
