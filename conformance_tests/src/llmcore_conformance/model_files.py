"""
The model files that the suite gives to an engine, chosen by the formats it declares.

For GGUF they are generated: tiny ones, of an architecture that the engine knows. A
distribution with a format of its own has a function that writes a small model, and
names it by that format among its entry points:

    [project.entry-points."llmcore.test_models"]
    txt = "my_backend.testing:write_model"    # called with the Path to write
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from llmcore.errors import ModelLoadError
from llmcore.values import Capability
from llmcore_conformance.target import Target

GROUP = "llmcore.test_models"


class Write(Protocol):
    """A function that writes a small model file."""

    __name__: str

    def __call__(self, path: Path, /) -> object: ...


class NoModelError(LookupError):
    """Nothing is known that the engine could read."""


def with_model(target: Target, folder: Path) -> Target:
    """
    A target with a model file, if its engine reads any.

    Args:
        target: One that has a model file already is returned as it is.

        folder: Where to write files.

    Raises:
        NoModelError: The suite can write no model in any of its formats.
    """
    formats = target.describe().formats
    if target.model_path is not None or not formats:
        return target
    first = None
    for path in _offers(formats, folder):
        offer = target.on(path)
        if _takes(offer):
            return offer
        first = first or offer
    if first is not None:
        return first  # the tests will say why it takes none
    raise NoModelError(
        f"the {target.name} backend reads {', '.join(formats)}, and the suite has no "
        "model of that: name one with --llmcore-model=FILE, or let the backend's "
        f"distribution write one (entry point group {GROUP!r})"
    )


def with_embedding(target: Target, folder: Path) -> Target:
    """
    The same engine, with a model for embeddings if it needs another one for that.

    Args:
        folder: Where to write files.
    """
    info = target.describe()
    if Capability.EMBEDDING not in info.capabilities or "gguf" not in info.formats:
        return target
    if _takes(target, Capability.EMBEDDING):
        return target
    from llmcore_conformance.models import tiny_embedding

    other = target.on(tiny_embedding(folder / "tiny-embedding.gguf"))
    return other if _takes(other, Capability.EMBEDDING) else target


def _offers(formats: tuple[str, ...], folder: Path) -> Iterator[Path]:
    for format in formats:
        for write in _writers(format):
            path = folder / f"{write.__name__}.{format}"
            write(path)
            yield path


def _writers(format: str) -> list[Write]:
    if format != "gguf":
        return [entry.load() for entry in entry_points(group=GROUP, name=format)]
    from llmcore_conformance import models  # brings NumPy

    return [models.tiny_llama, models.tiny_sliding_window, models.tiny_recurrent]


def _takes(target: Target, *wanted: Capability) -> bool:
    try:
        found = target.ask()
    except ModelLoadError:
        return False
    except Exception:  # a test will say what is wrong
        return True
    return found.capabilities.issuperset(wanted)
