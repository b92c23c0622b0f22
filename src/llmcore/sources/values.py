"""The values that sources are spoken of in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from llmcore.gguf_header import GGUFHeader
from llmcore.sources.source import Source


class Share(float):
    """
    How much of a download is done, 0.0 to 1.0, and the bytes that it is of.

    Attributes:
        done: Bytes that are here.

        total: Bytes of all files that are fetched.
    """

    done: int
    total: int

    def __new__(cls, done: int, total: int) -> Share:
        share = super().__new__(cls, done / total if total else 1.0)
        share.done, share.total = done, total
        return share


Progress = Callable[[Share], object]
"""Called with the share fetched, in the caller's thread; returning False cancels."""


@frozen(kw_only=True)
class ModelFile:
    """
    One file of a model.

    Attributes:
        name: Its name in its source.

        size: Bytes.

        path: Where it is on this machine; None if it is not here.

        sha256: Of its content, 64 hexadecimal digits, if its source tells.
    """

    name: str
    size: int
    path: Path | None = None
    sha256: str | None = None


@frozen(kw_only=True)
class Located:
    """
    A model that was looked up.

    Attributes:
        source: What was asked for.

        files: Its files; of a split model all of them, the first part first.

        commit: What the revision means, 40 hexadecimal digits, on a hub.

        header: The header of the model, with the tensors of all files; None if it was
            not asked for, or the model is no GGUF file.
    """

    source: Source
    files: tuple[ModelFile, ...]
    commit: str | None = None
    header: GGUFHeader | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that are not on this machine yet."""
        return sum(file.size for file in self.files if file.path is None)


@frozen(kw_only=True)
class Resolved(Located):
    """
    A model that is on this machine.

    Attributes:
        path: What to load: the file, or the first part of a split one.

        checked: Whether its source was asked. False if the source could not be reached
            and what was fetched earlier is used.
    """

    path: Path
    checked: bool = True
