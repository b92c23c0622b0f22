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
    from llmcore.context import Context
    from llmcore.gguf_header import GGUFHeader
    from llmcore.model import Model

BATCH = 512

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
KvType = Annotated[
    str, typer.Option("--kv", help="Type of the keys in the cache: f16, q8_0, q4_0, …")
]
KvTypeV = Annotated[
    str | None,
    typer.Option("--kv-v", help="Type of the values; that of the keys if not given."),
]
Batch = Annotated[
    int, typer.Option(min=1, help="Most tokens that are computed at once.")
]
Mmap = Annotated[bool, typer.Option(help="Map the file, or read it into memory.")]
Mlock = Annotated[bool, typer.Option("--mlock", help="Pin the weights in RAM.")]
Fit = Annotated[
    bool, typer.Option("--fit", help="If memory is short, take a smaller context.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Tell what was used of the memory.")
]


def context_fields(
    context_size: int | None, kv: str, kv_v: str | None, batch: int
) -> dict[str, Any]:
    """What the options say about a context; what they leave to us may be fitted."""
    fields: dict[str, Any] = {"context_size": context_size or "auto"}
    if (kv, kv_v) != ("f16", None):
        fields |= {"kv_type_k": kv, "kv_type_v": kv if kv_v is None else kv_v}
    if batch != BATCH:
        fields |= {"batch_size": batch, "micro_batch_size": batch}
    return fields


def tell_memory(context: Context) -> None:
    """Say on stderr what a context and its model use."""
    for account in (context.model.account(), context.account()):
        typer.echo(account.explain(), err=True)


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
    fit: bool = False,
    **fields: Any,
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
            fit=fit,
            gpu_layers="auto" if gpu_layers is None else gpu_layers,
            **fields,
        )
        progress.close()
        yield model


class _Progress:
    """Shows the share of a load; does nothing when no one looks."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True)
        self._bar.disable = not console.is_terminal
        self._task = self._bar.add_task(f"opening {escape(name)}", total=1.0)
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
